import LibeventConcurrency
import Logging
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// The life of a device against whoever gets in its way: a second opening, a loop that stands still, a driver that does not come
/// back.
@Suite(.quietLoops, .timeLimit(.minutes(2))) struct DeviceLifeTests {
  private static func open(_ driver: any NetworkDriver, pairs: Int = 1) async throws -> NetworkDevice {
    var settings = NetworkDevice.Configuration()
    settings.queuePairs = pairs
    settings.resetTimeout = .milliseconds(50)
    settings.logger.logLevel = .critical
    settings.pool = try PacketPool(.init(slots: 2048, hugePages: false))
    return try await NetworkDevice.open(driver: driver, configuration: settings)
  }

  @Test func `a driver drives one device at a time, and another one afterwards`() async throws {
    let driver = ScriptedDriver(mode: .loopback)
    let device = try await Self.open(driver)
    let error = await #expect(throws: NetworkDeviceError.self) { try await Self.open(driver) }
    #expect(error?.code == .busy)
    // The first one has noticed nothing.
    #expect(driver.resetCount == 0 && driver.shutDownCount == 0)
    try await device.queues[0].send(Packet(copying: numbered(1), in: device.pool))
    try await device.close()
    let again = try await Self.open(driver)
    try await again.close()
  }

  @Test func `a loop that stands still holds neither the end nor the other queues`() async throws {
    let driver = ScriptedDriver(mode: .hold, queuePairs: 2)
    let device = try await Self.open(driver, pairs: 2)
    let isHeld = Flag()
    let blocked = device.queues[0].loop
    blocked.execute { while !isHeld.isSet.load(ordering: .acquiring) {} }
    let other = Task { try await device.queues[1].closed() }
    // Nobody lets the loop go on before this has returned.
    try await device.close()
    try await other.value
    isHeld.isSet.store(true, ordering: .releasing)
    try await device.queues[0].closed()
  }

  @Test func `a driver that does not come back from a cancelled step is not waited for`() async throws {
    let driver = StuckDriver()
    let opened = Task { try await Self.open(driver) }
    try await eventually("it is in its step") { driver.isStuck }
    opened.cancel()
    let result = await opened.result
    #expect(throws: NetworkDeviceError.self) { try result.get() }
    driver.letGo()
    try await eventually("its life ends then") { driver.shutDowns == 1 }
  }

  @Test func `a device whose open was cancelled in time is open for nobody`() async throws {
    for _ in 0..<50 {
      let driver = ScriptedDriver(mode: .hold)
      let opened = Task { try await Self.open(driver) }
      await Task.yield()
      opened.cancel()
      if case .success(let device) = await opened.result { try await device.close() }
      try await eventually("it is shut down") { driver.shutDownCount == 1 }
    }
  }
}

private final class Flag: Sendable {
  let isSet = Atomic<Bool>(false)
}

/// A driver that hears no cancellation.
private final class StuckDriver: NetworkDriver {
  private let state = Mutex((isStuck: false, mayGo: false, shutDowns: 0))
  private let base = ScriptedDriver(mode: .hold)

  var isStuck: Bool { state.withLock { $0.isStuck } }
  var shutDowns: Int { state.withLock { $0.shutDowns } }
  func letGo() { state.withLock { $0.mayGo = true } }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    state.withLock { $0.isStuck = true }
    while !state.withLock({ $0.mayGo }) { await Task.yield() }
    return try await base.start(request)
  }

  func attach(pool: PacketPool) async throws(NetworkDeviceError) { try await base.attach(pool: pool) }
  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    try base.makeQueue(index: index, loop: loop, slots: slots, signal: signal)
  }
  func activate() async throws(NetworkDeviceError) { try await base.activate() }
  func reset(timeout: Duration) async throws(NetworkDeviceError) { try await base.reset(timeout: timeout) }
  func shutDown() async {
    await base.shutDown()
    state.withLock { $0.shutDowns += 1 }
  }
}
