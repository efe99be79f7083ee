public import LibeventConcurrency
public import Logging

/// A network device that is open: its queue pairs, each an actor on a loop of its own.
///
/// ```swift
/// let device = try await NetworkDevice.open(driver: driver)
/// try await device.run { queue in
///   for await packet in queue.packets { try await queue.send(packet) }
/// }
/// ```
///
/// Leaving `run`, whatever the reason, resets and closes the device. A device that is let go without `close` closes by itself.
public final class NetworkDevice: Sendable {
  /// How to open a device.
  public struct Configuration: Sendable {
    /// Queue pairs wanted; nil takes what the device recommends. `queues` in a device's URL comes first; a device that is opened
    /// by its URL has one pair if neither says.
    public var queuePairs: Int?
    /// Descriptors a ring; nil takes the device's choice or 256.
    public var queueSize: Int?
    /// The pool for the device's frames; nil makes one that fits. A pool can serve several devices.
    public var pool: PacketPool?
    /// Packets that the program keeps for longer than it takes to answer them, such as the last thousand of a capture: the pool
    /// that is made gets buffers for these on top. Without them a program that keeps packets ends up with all that it may have, and
    /// the packets that it makes lie on the heap, to be copied when they are sent. Fewer than none, and more than a pool can have
    /// buffers, a million for most devices, are `invalidConfiguration`.
    public var keptPackets = 0
    /// Loops for the queues, in turn: queue i lives on loop i. Devices that share loops forward to one another without leaving
    /// them. Empty makes a loop a queue pair, by the settings below.
    public var loops: [LoopExecutor] = []
    /// The loop on which the device's control plane lives: opening, recovery, closing. Nil makes one, on a thread of its own, for
    /// the devices that are opened together. It may be one of `loops`, though not for a device of another process, which
    /// could hold both, and it may be a loop that is turned by hand, on a simulated backend and its clock: nothing of a device's
    /// life happens anywhere else.
    public var controlLoop: LoopExecutor?
    /// CPUs to pin the queues' loops to, in turn; empty leaves placement to the scheduler.
    public var cpus: [Int] = []
    /// How long an idle queue polls before it sleeps; zero, and less, sleeps at once.
    public var busyPoll: Duration = .zero
    /// How long the device may take to confirm a reset before its memory is quarantined; less than zero counts as zero.
    public var resetTimeout: Duration = .seconds(5)
    /// A job that holds a queue's loop longer is counted and logged.
    public var stallBound: Duration = .milliseconds(100)
    /// Where the control plane logs. Lines are written in order, on a thread of the library's own: traffic does not wait
    /// for the logger, and ``NetworkDevice/close()`` 100 ms at most. While its output takes nothing, lines beyond a bound are
    /// dropped; a later line says how many.
    public var logger = Logger(label: "netdev")

    /// The defaults.
    public init() {}
  }

  /// What the device turned out to be.
  public let information: NetworkDeviceInformation
  /// The pool that its frames lie in.
  public let pool: PacketPool
  /// The queue pairs.
  public let queues: [NetworkQueue]
  let life: DeviceLife

  init(information: NetworkDeviceInformation, pool: PacketPool, queues: [NetworkQueue], life: DeviceLife) {
    self.information = information
    self.pool = pool
    self.queues = queues
    self.life = life
  }

  deinit { life.post(.end(.closedByProgram)) }
}

// MARK: - Running and closing

extension NetworkDevice {
  /// Runs `body` once a queue pair, each on its queue's loop, concurrently, and closes the device when they have ended.
  ///
  /// Cancelling the task closes the device at once; the bodies' waits then end within `resetTimeout` and a second, and with them
  /// this.
  ///
  /// - Throws: what a body throws (the others are then cancelled and the device closes at once), the cause when the device
  ///   broke, `CancellationError` when the task was cancelled, whichever wait of a body met with it.
  public func run(_ body: @escaping @Sendable (isolated NetworkQueue) async throws -> Void) async throws {
    try await run(isolation: #isolation, body)
  }

  /// The same on the caller's actor: a closure stays there that captures it, and others would go by the runtime's pool.
  private func run(
    isolation: isolated (any Actor)?, _ body: @escaping @Sendable (isolated NetworkQueue) async throws -> Void
  ) async throws {
    let life = life
    try await withTaskCancellationHandler {
      do {
        try await withThrowingTaskGroup(of: Void.self) { group in
          _ = isolation
          // At once: the child goes to its queue's loop from here, not by the runtime's pool of threads.
          for queue in queues { group.addImmediateTask { try await queue.run(body) } }
          do {
            while try await group.next() != nil {}
          } catch {
            // Children may wait for releases that only the reset brings: it starts before they are waited for.
            group.cancelAll()
            life.post(.end(.closedByProgram))
            throw error
          }
        }
      } catch {
        try? await close()
        if let cause = await life.brokenCause { throw cause }
        // Whatever a body was waiting for when it was cancelled, and whether it met with that or with the close that came of it.
        if Task.isCancelled, error.isOfCancellation { throw CancellationError() }
        throw error
      }
      try await close()
      if let cause = await life.brokenCause { throw cause }
      try Task.checkCancellation()
    } onCancel: {
      life.post(.end(.closedByProgram))
    }
  }

  /// Resets the device, waits for its confirmation and releases everything but packets that are still held.
  ///
  /// Sends in flight complete or fail, each once. Calling it again waits for the same end. It takes `resetTimeout` and a second
  /// at most, whatever the device and the queues' loops do; cancelling the task does not shorten that. Buffers that a lost device
  /// which still lives could write to do not return to the pool any more: their number is logged as a warning.
  ///
  /// - Throws: `resetNotConfirmed` when the device did not confirm in time: what it may still write to is quarantined.
  public func close() async throws(NetworkDeviceError) {
    life.post(.end(.closedByProgram))
    if let failure = await life.ended() { throw failure }
  }
}

// MARK: - The link

extension NetworkDevice {
  /// True while the link is up: frames go in and out. A device whose other side went away looks for it, and its programs go on
  /// when it is back.
  public var isLinkUp: Bool { life.link.isUp }

  /// What happens to the link from now on, for each caller; ends with the device. Waiting for the next change has no deadline,
  /// and cancellation ends it at once.
  public var linkChanges: AsyncStream<LinkChange> { life.link.changes() }
}

extension NetworkDeviceError {
  static var closedByProgram: NetworkDeviceError {
    NetworkDeviceError(.closed, "the device", offered: "it was closed")
  }

  package static var openCancelled: NetworkDeviceError {
    NetworkDeviceError(.cancelled, "open", offered: "the task was cancelled before the device was open")
  }
}
