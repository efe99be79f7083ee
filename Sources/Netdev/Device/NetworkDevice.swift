internal import LibeventConcurrency
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
    /// Queue pairs wanted; nil takes what the device recommends.
    public var queuePairs: Int?
    /// Descriptors a ring; nil takes the device's choice or 256.
    public var queueSize: Int?
    /// The pool for the device's frames; nil makes one that fits. A pool can serve several devices.
    public var pool: PacketPool?
    /// CPUs to pin the queues' loops to, in turn; empty leaves placement to the scheduler.
    public var cpus: [Int] = []
    /// How long an idle queue polls before it sleeps; zero sleeps at once.
    public var busyPoll: Duration = .zero
    /// How long the device may take to confirm a reset before its memory is quarantined.
    public var resetTimeout: Duration = .seconds(5)
    /// A job that holds a queue's loop longer is counted and logged.
    public var stallBound: Duration = .milliseconds(100)
    /// Where the control plane logs.
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
  private let link: LinkMonitor
  private let closer: DeviceCloser

  init(
    information: NetworkDeviceInformation, pool: PacketPool, queues: [NetworkQueue], link: LinkMonitor,
    closer: DeviceCloser
  ) {
    self.information = information
    self.pool = pool
    self.queues = queues
    self.link = link
    self.closer = closer
  }

  deinit {
    let closer = closer
    Task { try? await closer.close(.closedByProgram) }
  }

  /// Opens the device that `driver` drives: negotiates, makes pool, loops and queues, and starts it.
  ///
  /// - Throws: whatever the driver refuses; everything made so far is then taken down again.
  public static func open(
    driver: any NetworkDriver, configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    let link = LinkMonitor()
    let driver = LoggedDriver(driver, logger: configuration.logger)
    driver.watchLink { link.note($0) }
    let closer = DeviceCloser(driver: driver, link: link, timeout: configuration.resetTimeout)
    do throws(NetworkDeviceError) {
      let request = NetworkDriverRequest(queuePairs: configuration.queuePairs, queueSize: configuration.queueSize)
      let information = try await driver.start(request)
      let pool = if let given = configuration.pool { given } else { try PacketPool(.fitting(information)) }
      try pool.configuration.check(against: information)
      try await driver.attach(pool: pool)
      var queues: [NetworkQueue] = []
      for index in 0..<information.queuePairs {
        let loop = try makeLoop(index, information, configuration)
        let queue = NetworkQueue(
          index: index, loop: loop, pool: pool, maximumFrameLength: information.mtu + 14)
        await closer.add(queue)
        try await queue.prepare(driver: driver, busyPoll: configuration.busyPoll) { cause in
          Task { try? await closer.close(cause) }
        }
        queues.append(queue)
      }
      try await driver.activate()
      configuration.logger.debug(
        "device open", metadata: ["device": "\(information.name)", "queuePairs": "\(information.queuePairs)"])
      return NetworkDevice(information: information, pool: pool, queues: queues, link: link, closer: closer)
    } catch {
      try? await closer.close(error)
      throw error
    }
  }

  private static func makeLoop(
    _ index: Int, _ information: NetworkDeviceInformation, _ configuration: Configuration
  ) throws(NetworkDeviceError) -> LoopExecutor {
    let name = "\(information.name)/\(index)"
    let logger = configuration.logger
    let cpu = configuration.cpus.isEmpty ? nil : configuration.cpus[index % configuration.cpus.count]
    do {
      return try LoopExecutor(name: name, cpu: cpu, stallBound: configuration.stallBound) { length in
        logger.warning("a job held the loop", metadata: ["queue": "\(name)", "length": "\(length)"])
      }
    } catch {
      throw NetworkDeviceError(
        .system, "starting the loop of queue \(index)", offered: error.description,
        advice: cpu == nil ? "" : "name a CPU that this machine has")
    }
  }
}

// MARK: - Running and closing

extension NetworkDevice {
  /// Runs `body` once a queue pair, each on its queue's loop, concurrently, and closes the device when they have ended.
  ///
  /// - Throws: what a body throws (the others are then cancelled and the device closes at once), the cause when the device
  ///   broke, `CancellationError` when the task was cancelled.
  public func run(_ body: @escaping @Sendable (isolated NetworkQueue) async throws -> Void) async throws {
    let closer = closer
    try await withTaskCancellationHandler {
      do {
        try await withThrowingTaskGroup(of: Void.self) { group in
          for queue in queues { group.addTask { try await queue.run(body) } }
          do {
            while try await group.next() != nil {}
          } catch {
            // Children may wait for releases that only the reset brings: it starts before they are waited for.
            group.cancelAll()
            Task { try? await closer.close(.closedByProgram) }
            throw error
          }
        }
      } catch {
        try? await closer.close(.closedByProgram)
        throw await closer.brokenCause ?? error
      }
      try await closer.close(.closedByProgram)
      if let cause = await closer.brokenCause { throw cause }
      try Task.checkCancellation()
    } onCancel: {
      Task { try? await closer.close(.closedByProgram) }
    }
  }

  /// Resets the device, waits for its confirmation and releases everything but packets that are still held.
  ///
  /// Sends in flight complete or fail, each once. Calling it again waits for the same end.
  ///
  /// - Throws: `resetNotConfirmed` when the device did not confirm in time: what it may still write to is quarantined.
  public func close() async throws(NetworkDeviceError) { try await closer.close(.closedByProgram) }
}

// MARK: - The link

extension NetworkDevice {
  /// True while the link is up: frames go in and out. A device whose other side went away looks for it, and its programs go on
  /// when it is back.
  public var isLinkUp: Bool { link.isUp }

  /// What happens to the link from now on, for each caller; ends with the device.
  public var linkChanges: AsyncStream<LinkChange> { link.changes() }
}

extension NetworkDeviceError {
  static var closedByProgram: NetworkDeviceError {
    NetworkDeviceError(.closed, "the device", offered: "it was closed")
  }
}

extension PacketPool.Configuration {
  /// A pool for one device alone: both rings of each pair full, and as much again for the program.
  static func fitting(_ information: NetworkDeviceInformation) -> PacketPool.Configuration {
    let headroom = max(128, (information.headroom * 2 + 63) & ~63)
    let buffer = max(information.receiveBufferSize, 1) + headroom
    let slotSize = buffer <= 2048 ? 2048 : (buffer + 63) & ~63
    let rings = 2 * information.queueSize * information.queuePairs
    return PacketPool.Configuration(
      slots: min(rings * 2 + 256, 1_048_575), slotSize: min(slotSize, 65_536), headroom: headroom,
      reserve: min(rings / 2, 1_048_575))
  }

  func check(against information: NetworkDeviceInformation) throws(NetworkDeviceError) {
    // A program may use half of the headroom for headers of its own (`Packet.prepend`).
    guard headroom / 2 >= information.headroom else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open", offered: "a pool with \(headroom) bytes of headroom",
        advice: "this device needs at least \(2 * information.headroom)")
    }
    guard slotSize - headroom >= information.receiveBufferSize else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open", offered: "a pool with buffers of \(slotSize - headroom) bytes",
        advice: "this device receives into buffers of at least \(information.receiveBufferSize) bytes")
    }
  }
}
