internal import Logging
internal import Netdev
internal import Synchronization

/// One run of one check: what it has opened, and how it waits and judges.
final class ConformanceTrial: Sendable {
  let check: DriverConformance.Check
  let suite: DriverConformance
  let log = AuditLog()
  private let opened = Mutex<[ConformanceBench]>([])

  init(check: DriverConformance.Check, suite: DriverConformance) {
    self.check = check
    self.suite = suite
  }

  /// True when driver and peer can do this.
  func can(_ capability: DriverConformance.Capability) -> Bool { !suite.lacking.contains(capability) }

  /// A frame that says which it is.
  func frame(_ number: Int, length: Int, flow: Int = 0) -> [UInt8] {
    let stations = suite.stations
    return ConformanceFrame.bytes(number, length: length, flow: flow, from: stations.source, to: stations.destination)
  }

  // MARK: Opening

  /// A fresh driver joined to its peer.
  func join(queuePairs: Int) async throws -> DriverConformance.Joint {
    do {
      return try await suite.join(queuePairs)
    } catch {
      throw violation("a driver can be made", "\(error)")
    }
  }

  /// A fresh device.
  ///
  /// - Parameters:
  ///   - pool: nil takes one that fits.
  ///   - keepsSpare: a buffer is kept back, for frames that are to lie in two.
  func open(
    queuePairs: Int = 1, pool: PacketPool? = nil, keepsSpare: Bool = false
  ) async throws -> ConformanceBench {
    let joint = try await join(queuePairs: queuePairs)
    let interventions = Interventions(keepsSpare: keepsSpare)
    let audit = AuditedDriver(joint.driver, log: log, interventions: interventions)
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = queuePairs
    configuration.pool = pool
    // What goes wrong is the check's to say.
    configuration.logger = Logger(label: "conformance") { _ in SwiftLogNoOpLogHandler() }
    let settings = configuration
    let result = ConformanceTask { try await NetworkDevice.open(driver: audit, configuration: settings) }
    do {
      let device = try await result.value(in: self, "the device opens")
      let bench = ConformanceBench(
        trial: self, peer: joint.peer, device: device, audit: audit, interventions: interventions)
      opened.withLock { $0.append(bench) }
      return bench
    } catch {
      await joint.peer.close()
      throw error
    }
  }

  /// A layout for a pool of the check's own: buffers a little larger than this device needs.
  func poolLayout(slots: Int? = nil) async throws -> PacketPool.Configuration {
    let bench = try await open()
    var layout = bench.pool.configuration
    try await bench.close()
    layout.slotSize = min(65_536, layout.slotSize + 64)
    layout.hugePages = false
    if let slots {
      layout.slots = slots
      layout.reserve = 0
    }
    return layout
  }

  // MARK: Judging

  func violation(_ expected: String, _ seen: String) -> DriverConformance.Violation {
    DriverConformance.Violation(check, expected: expected, seen: seen)
  }

  /// - Throws: a violation unless the condition holds.
  func expect(_ condition: Bool, _ expected: String, _ seen: @autoclosure () -> String) throws {
    try expectClean()
    guard condition else { throw violation(expected, seen()) }
  }

  /// - Throws: what the audit of the seam has found.
  func expectClean() throws {
    if let finding = log.finding { throw violation(finding.expected, finding.seen) }
  }

  /// Waits for a condition, as long as the suite's patience lasts.
  func eventually(
    _ expected: String, seen: () async -> String = { "it never happened" }, _ condition: () async -> Bool
  ) async throws {
    let deadline = ContinuousClock.now + suite.patience
    var looks = 0
    while await !condition() {
      try expectClean()
      guard ContinuousClock.now < deadline else { throw violation(expected, await seen()) }
      looks += 1
      // Quick at first; then the threads of what is waited for get the processor.
      if looks < 50 { await Task.yield() } else { try await Task.sleep(for: .milliseconds(1)) }
    }
    try expectClean()
  }

  // MARK: The end

  /// Closes what is open, and judges that.
  func finish() async throws {
    for bench in opened.withLock({ $0 }) { try await bench.close() }
    try expectClean()
  }

  /// Lets go of a device that is closed, and with it of all that it was made of.
  func forget(_ bench: ConformanceBench) { opened.withLock { $0.removeAll { $0 === bench } } }

  /// The check has failed: takes down what it can.
  func abandon() async {
    for bench in opened.withLock({ $0 }) { await bench.abandon() }
  }
}

/// Something that runs beside the check, and what it came to. A driver that never answers must not hang the check.
final class ConformanceTask<Value: Sendable>: Sendable {
  private let state = Mutex<Result<Value, any Error>?>(nil)
  private let task = Mutex<Task<Void, Never>?>(nil)

  init(_ body: @escaping @Sendable () async throws -> Value) {
    let running = Task {
      let result: Result<Value, any Error>
      do { result = .success(try await body()) } catch { result = .failure(error) }
      state.withLock { $0 = result }
    }
    task.withLock { $0 = running }
  }

  /// What it came to, once it has ended.
  var result: Result<Value, any Error>? { state.withLock { $0 } }
  var isFinished: Bool { result != nil }

  /// The code of the error that it ended with, if it ended with one.
  var failure: NetworkDeviceError.Code? {
    guard case .failure(let error)? = result else { return nil }
    return (error as? NetworkDeviceError)?.code
  }

  func cancel() { task.withLock { $0 }?.cancel() }

  /// Waits for the end.
  ///
  /// - Throws: a violation when it does not come, or when the task failed.
  @discardableResult func value(in trial: ConformanceTrial, _ expected: String) async throws -> Value {
    try await trial.eventually(expected) { isFinished }
    switch result {
    case .success(let value)?: return value
    case .failure(let error as DriverConformance.Violation)?: throw error
    case .failure(let error)?: throw trial.violation(expected, "\(error)")
    case nil: throw trial.violation(expected, "it never happened")
    }
  }
}
