import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// An empty pool holds its senders back, as a full ring does. It is no error, unless it is plain that it stays empty.
@Suite(.timeLimit(.minutes(3))) struct EmptyPoolTests {
  /// A device whose pool has `slots` buffers for programs beside those that are posted.
  private static func open(_ driver: ScriptedDriver, slots: Int = 8, capacity: Int = 16) async throws -> NetworkDevice {
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: slots + capacity, hugePages: false))
    return try await NetworkDevice.open(driver: driver, configuration: configuration)
  }

  /// Takes every buffer that a program can have.
  private static func exhaust(_ pool: PacketPool) throws -> [Packet] {
    var kept: [Packet] = []
    while true {
      let packet = try Packet(copying: numbered(kept.count), in: pool)
      guard packet.isInPool else { return kept }
      kept.append(packet)
    }
  }

  /// A packet that lies elsewhere.
  private static func foreign(_ number: Int = 99, count: Int = 64) throws -> Packet {
    try Packet(copying: numbered(number, count: count), in: PacketPool(.init(slots: 1, hugePages: false)))
  }

  @Test(arguments: SendPath.allCases)
  func `a sender waits for a buffer, and goes on when one is given back anywhere`(_ path: SendPath) async throws {
    let driver = ScriptedDriver(mode: .release, capacity: 16)
    let device = try await Self.open(driver)
    let queue = device.queues[0]
    let kept = Mutex(try Self.exhaust(device.pool))
    let outcome = Outcome()
    Task { await outcome.record { try await path.send(Self.foreign(), to: queue) } }
    try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
    await turn(queue, times: 3)
    #expect(outcome.finished == 0)
    // On this thread, which is none of a loop.
    kept.withLock { _ = $0.popLast() }
    try await eventually("it is sent") { outcome.finished == 1 && queue.statistics.packetsReleased == 1 }
    #expect(outcome.errors.isEmpty)
    kept.withLock { $0 = [] }
    try await device.close()
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  @Test(arguments: SendPath.allCases)
  func `a sender that waits for a buffer can be cancelled, and is told just that`(_ path: SendPath) async throws {
    let device = try await Self.open(ScriptedDriver(mode: .release, capacity: 16))
    let queue = device.queues[0]
    let kept = try Self.exhaust(device.pool)
    let outcome = Outcome()
    let task = Task { await outcome.record { try await path.send(Self.foreign(), to: queue) } }
    try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
    task.cancel()
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.cancelled])
    #expect(outcome.errors.map { $0.operation } == [path.operation])
    #expect(queue.statistics.packetsSubmitted == 0)
    withExtendedLifetime(kept) {}
    try await device.close()
  }

  @Test(arguments: SendPath.allCases)
  func `when the program itself keeps every buffer, a sender is told after a while`(_ path: SendPath) async throws {
    let device = try await Self.open(ScriptedDriver(mode: .release, capacity: 16))
    let queue = device.queues[0]
    let kept = try Self.exhaust(device.pool)
    let outcome = Outcome()
    await outcome.record { try await path.send(Self.foreign(), to: queue) }
    #expect(outcome.errors.map { $0.code } == [.outOfMemory])
    #expect(outcome.errors.map { $0.operation } == [path.operation])
    // It concerned that one call: the queue goes on.
    try await queue.send(kept[0])
    try await device.close()
  }

  @Test func `while the device has buffers, a sender waits for them however long it takes`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    let device = try await Self.open(driver)
    let queue = device.queues[0]
    for packet in try Self.exhaust(device.pool) { try await queue.submit(packet) }
    try await eventually("all are with the device") { await driver.held() == 8 }
    let outcome = Outcome()
    Task { await outcome.record { try await queue.send(Self.foreign()) } }
    try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
    // More than twice as long as it would with nothing in flight, by the loop's clock.
    let scope = LoopScope(queue.loop)
    let start = await scope.run { _ in queue.loop.now }
    try await eventually("time passes") { await scope.run { _ in queue.loop.now } - start > 2_200_000_000 }
    #expect(outcome.finished == 0)
    await driver.release(at: 3)
    try await eventually("it is published") { await driver.held() == 8 }
    #expect(await driver.heldBytes(at: 7) == numbered(99))
    await driver.releaseAll()
    try await eventually("and released") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await device.close()
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  @Test func `what all of the pool cannot hold is refused at once`() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 20, reserve: 16, hugePages: false))
    let driver = ScriptedDriver(mode: .release, capacity: 16, mtu: 9000, receiveBufferSize: 1514)
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    for path in SendPath.ofPacket {
      let outcome = Outcome()
      await outcome.record { try await path.send(Self.foreign(count: 9000), to: queue) }
      #expect(outcome.errors.map { $0.code } == [.outOfMemory], "\(path)")
    }
    #expect(queue.statistics.poolEmpty == 0)
    try await device.close()
  }

  @Test func `senders are served in the order in which they came, a long frame before a short one behind it`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold, capacity: 16, mtu: 9000, receiveBufferSize: 1514)
    let device = try await Self.open(driver)
    let queue = device.queues[0]
    var kept = try Self.exhaust(device.pool)
    let outcomes = [Outcome(), Outcome()]
    for (number, length) in [4000, 64].enumerated() {
      Task { await outcomes[number].record { try await queue.send(Self.foreign(number, count: length)) } }
      try await eventually("it waits") { queue.statistics.poolEmpty == UInt64(number + 1) }
    }
    // Three buffers are what the first needs.
    for count in 1...2 {
      _ = kept.popLast()
      await turn(queue, times: 3)
      #expect(await driver.held() == 0, "\(count) buffers are free")
    }
    _ = kept.popLast()
    try await eventually("the first is out") { await driver.held() == 1 }
    _ = kept.popLast()
    try await eventually("and the second") { await driver.held() == 2 }
    #expect(await driver.heldBytes(at: 0) == numbered(0, count: 4000))
    #expect(await driver.heldBytes(at: 1) == numbered(1))
    await driver.releaseAll()
    try await eventually("both end") { outcomes.allSatisfy { $0.finished == 1 } }
    kept = []
    try await device.close()
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  @Test func `closing ends the wait for a buffer`() async throws {
    let device = try await Self.open(ScriptedDriver(mode: .release, capacity: 16))
    let queue = device.queues[0]
    let kept = try Self.exhaust(device.pool)
    let outcome = Outcome()
    Task { await outcome.record { try await queue.send(Self.foreign()) } }
    try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
    try await device.close()
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.closed])
    withExtendedLifetime(kept) {}
  }
}
