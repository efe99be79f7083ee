#if ServiceLifecycle
internal import LibeventConcurrency
public import Netdev
internal import NetdevDevices
public import ServiceLifecycle

/// A network device as a service: opened when the service starts, closed gracefully when the group shuts down.
///
/// ```swift
/// let echo = NetworkDeviceService("tap:tap0?queues=2") { queue in
///   for await packet in queue.packets { try await queue.send(packet) }
/// }
/// try await ServiceGroup(services: [echo], gracefulShutdownSignals: [.sigterm], logger: logger).run()
/// ```
///
/// The body runs once a queue pair, on the pair's loop, as that of `NetworkDevice.run`. A graceful shutdown goes like this:
///
/// 1. The bodies go on. They may ask `Task.isShuttingDownGracefully` and end by themselves; they need not.
/// 2. The service waits until the device has released as many frames as had been submitted when the shutdown was asked
///    for, but no longer than the grace period.
/// 3. The device is closed: `packets` ends, frames still in flight fail with `closed`, and so does a body that sends on.
///    That failure is the shutdown's doing, and `run` returns.
///
/// Cancelling the task of `run`, as a group does whose patience is over, closes the device at once. The service needs the
/// trait `ServiceLifecycle`.
public struct NetworkDeviceService: Service {
  /// What runs on each queue pair.
  public typealias Body = @Sendable (isolated NetworkQueue) async throws -> Void

  private let open: @Sendable () async throws -> NetworkDevice
  private let gracePeriod: Duration
  private let body: Body

  /// A service that opens the device of a URL, see `NetworkDevice.open(_:configuration:)`.
  ///
  /// - Parameters:
  ///   - url: The device.
  ///   - configuration: How to open it.
  ///   - gracePeriod: How long a shutdown waits for frames in flight.
  ///   - body: What runs on each queue pair.
  public init(
    _ url: String, configuration: NetworkDevice.Configuration = NetworkDevice.Configuration(),
    gracePeriod: Duration = .seconds(5), body: @escaping Body
  ) {
    self.init(
      gracePeriod: gracePeriod, opening: { try await NetworkDevice.open(url, configuration: configuration) }, body: body
    )
  }

  /// A service for a device that `open` opens, or has opened: the service closes it.
  ///
  /// - Parameters:
  ///   - gracePeriod: How long a shutdown waits for frames in flight.
  ///   - open: Called once in each `run`.
  ///   - body: What runs on each queue pair.
  public init(
    gracePeriod: Duration = .seconds(5), opening open: @escaping @Sendable () async throws -> NetworkDevice,
    body: @escaping Body
  ) {
    self.open = open
    self.gracePeriod = gracePeriod.bounded
    self.body = body
  }

  /// Opens the device, runs the bodies and returns when they have ended, or after a graceful shutdown. The device is then
  /// closed.
  ///
  /// Deadline: none of its own, it runs as long as the bodies do. A graceful shutdown takes the grace period, `resetTimeout` and
  /// a second at most. Cancellation closes the device at once, as it does for `NetworkDevice.run`.
  ///
  /// - Throws: What keeps the device from being opened, what a body throws, the cause when the device broke,
  ///   `resetNotConfirmed` when it could not be closed in order, `CancellationError` when the task was cancelled.
  public func run() async throws {
    let device = try await open()
    try await withThrowingTaskGroup(of: Bool.self) { group in
      group.addTask { try await closeOnShutdown(device) }
      do {
        try await device.run(body)
      } catch let error as NetworkDeviceError where error.code == .closed {
        // A body was sending when the device closed. If that was the shutdown, it is no failure.
        group.cancelAll()
        guard try await group.next() == true else { throw error }
        return
      }
      // Nobody need wait for a shutdown any more; one that is under way ends with the device closed.
      group.cancelAll()
      _ = try await group.next()
    }
  }

  /// Waits for a graceful shutdown and closes the device; false if there was none.
  private func closeOnShutdown(_ device: NetworkDevice) async throws -> Bool {
    do {
      try await gracefulShutdown()
    } catch {
      return false
    }
    await drain(device)
    try await device.close()
    return true
  }

  /// Waits until the device has given back as many frames as it has been given so far, for the grace period at most.
  private func drain(_ device: NetworkDevice) async {
    let deadline = ContinuousClock.now + gracePeriod
    let owed = device.statistics.map { $0.packetsSubmitted }
    while ContinuousClock.now < deadline {
      let done = device.statistics.map { $0.packetsReleased &+ $0.packetsFailed }
      if zip(done, owed).allSatisfy({ $0 >= $1 }) { return }
      // A queue is looked at a few times in a shutdown, so asking again costs less than being told.
      guard (try? await Task.sleep(for: .milliseconds(5))) != nil else { return }
    }
  }
}
#endif
