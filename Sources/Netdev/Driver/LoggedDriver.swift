internal import LibeventConcurrency
internal import Logging
internal import Synchronization

/// A driver whose steps are in the log, whichever driver it is: what was asked, what came of it and how long it took, at
/// level debug, and the link's changes as notices. Whether a failure is worth more is for those to say who get the error.
///
/// Queues are the driver's own: no packet goes through here.
final class LoggedDriver: NetworkDriver {
  private let base: any NetworkDriver
  private let logger: Logger
  /// The device's name, once the driver has said it.
  private let name = Mutex("")

  init(_ base: any NetworkDriver, logger: Logger) {
    self.base = base
    self.logger = logger
  }

  /// Logs with the device's name.
  func log(_ level: Logger.Level, _ message: Logger.Message, _ more: Logger.Metadata = [:]) {
    guard logger.logLevel <= level else { return }
    var metadata = more
    let name = name.withLock { $0 }
    if !name.isEmpty { metadata["device"] = "\(name)" }
    logger.log(level: level, message, metadata: metadata)
  }

  private func report(
    _ step: String, _ start: ContinuousClock.Instant, _ more: Logger.Metadata, _ error: NetworkDeviceError?
  ) {
    var metadata = more
    metadata["took"] = "\(ContinuousClock.now - start)"
    if let error { metadata["error"] = "\(error)" }
    log(.debug, error == nil ? "\(step)" : "\(step) failed", metadata)
  }

  private func log<Result: Sendable>(
    step: String, _ metadata: Logger.Metadata = [:],
    _ body: () async throws(NetworkDeviceError) -> Result
  ) async throws(NetworkDeviceError) -> Result {
    let start = ContinuousClock.now
    do throws(NetworkDeviceError) {
      let result = try await body()
      report(step, start, metadata, nil)
      return result
    } catch {
      report(step, start, metadata, error)
      throw error
    }
  }

  func watchLink(_ onChange: @escaping @Sendable (LinkChange) -> Void) {
    base.watchLink { [weak self] change in
      switch change {
      case .down(let cause): self?.log(.notice, "link down", ["cause": "\(cause)"])
      case .up: self?.log(.notice, "link up")
      }
      onChange(change)
    }
  }

  var deviceDrops: [DeviceDrops] { base.deviceDrops }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    let asked: Logger.Metadata = [
      "queuePairs": "\(request.queuePairs.map { "\($0)" } ?? "any")",
      "queueSize": "\(request.queueSize.map { "\($0)" } ?? "any")",
    ]
    let information = try await log(step: "agreed with the device", asked) { () async throws(NetworkDeviceError) in
      let information = try await base.start(request)
      name.withLock { $0 = information.name }
      return information
    }
    log(
      .debug, "the device",
      [
        "queuePairs": "\(information.queuePairs)", "queueSize": "\(information.queueSize)",
        "mtu": "\(information.mtu)", "hardwareAddress": "\(information.hardwareAddress.map { "\($0)" } ?? "none")",
      ])
    return information
  }

  func attach(pool: PacketPool) async throws(NetworkDeviceError) {
    let configuration = pool.configuration
    try await log(
      step: "the device knows the pool", ["slots": "\(configuration.slots)", "slotSize": "\(configuration.slotSize)"]
    ) { () async throws(NetworkDeviceError) in try await base.attach(pool: pool) }
  }

  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let start = ContinuousClock.now
    let metadata: Logger.Metadata = ["queue": "\(index)", "loop": "\(loop.name)"]
    do throws(NetworkDeviceError) {
      let queue = try base.makeQueue(index: index, loop: loop, slots: slots, signal: signal)
      report("made a queue pair", start, metadata, nil)
      return queue
    } catch {
      report("making a queue pair", start, metadata, error)
      throw error
    }
  }

  func activate() async throws(NetworkDeviceError) {
    try await log(step: "activated") { () async throws(NetworkDeviceError) in try await base.activate() }
  }

  func reset(timeout: Duration) async throws(NetworkDeviceError) {
    try await log(step: "reset", ["timeout": "\(timeout)"]) { () async throws(NetworkDeviceError) in
      try await base.reset(timeout: timeout)
    }
  }

  func shutDown() async {
    let start = ContinuousClock.now
    await base.shutDown()
    report("shut down", start, [:], nil)
  }
}
