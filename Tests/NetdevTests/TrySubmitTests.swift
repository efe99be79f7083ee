import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Sending without waiting, on the queue's loop and elsewhere.
@Suite(.timeLimit(.minutes(1))) struct TrySubmitTests {
  private static func open(
    _ driver: ScriptedDriver, pool: PacketPool? = nil
  ) async throws -> (device: NetworkDevice, queue: NetworkQueue) {
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    return (device, device.queues[0])
  }

  private static func expectClosed(_ body: () async throws -> Void) async {
    let error = await #expect(throws: NetworkDeviceError.self) { try await body() }
    #expect(error?.code == .closed)
  }

  @Test func `a full ring gives the packet back, and takes the next when there is room again`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let (device, queue) = try await Self.open(driver)
    try await queue.run { queue in
      #expect(queue.transmitRoom == 4 && queue.inFlight == 0)
      for number in 0..<4 {
        let packet = try Packet(copying: numbered(number), in: queue.pool)
        let isTaken = try queue.trySubmit(packet) == nil
        #expect(isTaken)
      }
      let fifth = try queue.trySubmit(Packet(copying: numbered(4), in: queue.pool))
      // The one that found no room is itself, and nobody's copy.
      #expect(fifth?.number == 4)
      #expect(queue.transmitRoom == 0 && queue.inFlight == 4)
    }
    #expect(queue.inFlight == 4)
    #expect(device.totalStatistics.packetsRefused == 1 && device.totalStatistics.ringFull == 0)
    await driver.releaseFirst(1)
    try await queue.run { queue in
      let isTaken = try queue.trySubmit(Packet(copying: numbered(5), in: queue.pool)) == nil
      #expect(isTaken)
    }
    #expect(await driver.held() == 4)
    #expect(await driver.heldBytes(at: 3) == numbered(5))
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `whoever does not wait never passes whoever waits`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 2)
    let (device, queue) = try await Self.open(driver)
    for number in 0..<2 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
    try await eventually("both are with the device") { queue.inFlight == 2 }
    let waiting = Task {
      try await queue.run { queue in try await queue.submit(Packet(copying: numbered(2), in: queue.pool)) }
    }
    try await eventually("somebody waits") { queue.statistics.sendersWaiting == 1 }
    let isBack = try await queue.run { queue in
      try queue.trySubmit(Packet(copying: numbered(3), in: queue.pool)) != nil
    }
    #expect(isBack)
    // From elsewhere it is the same.
    #expect(queue.transmitRoom == 0)
    #expect(try queue.trySubmit(Packet(copying: numbered(4), in: queue.pool)) != nil)
    await driver.releaseFirst(1)
    try await waiting.value
    #expect(queue.statistics.sendersWaiting == 0)
    #expect(queue.statistics.senderWait > .zero)
    #expect(queue.statistics.packetsRefused == 2)
    #expect(await driver.heldBytes(at: 1) == numbered(2))
    try await device.close()
  }

  @Test func `not even where there is room for one, and the first of those who wait wants it for two`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 2)
    let (device, queue) = try await Self.open(driver)
    try await queue.submit(Packet(copying: numbered(0), in: queue.pool))
    try await eventually("it is with the device") { queue.inFlight == 1 }
    let waiting = Task {
      try await queue.run { queue in try await queue.submit(queue.makeBurst(count: 2, length: 64)) }
    }
    try await eventually("the burst waits") { queue.statistics.sendersWaiting == 1 }
    let isBack = try await queue.run { queue in
      try queue.trySubmit(Packet(copying: numbered(1), in: queue.pool)) != nil && queue.transmitRoom == 0
    }
    #expect(isBack)
    await driver.releaseAll()
    try await waiting.value
    #expect(await driver.held() == 2)
    try await device.close()
  }

  @Test func `a device of the same loop has its turn before a packet comes back`() async throws {
    // Each frame is released when the device has been rung for: a ring of four takes any number of them.
    let driver = ScriptedDriver(mode: .release, capacity: 4)
    let (device, queue) = try await Self.open(driver)
    try await queue.run { queue in
      for number in 0..<2000 {
        let isTaken = try queue.trySubmit(Packet(copying: numbered(number), in: queue.pool)) == nil
        #expect(isTaken)
      }
    }
    #expect(device.totalStatistics.packetsRefused == 0)
    try await device.close()
    #expect(device.totalStatistics.packetsReleased == 2000)
  }

  @Test func `a packet of another pool moves when there are buffers, and comes back as it was when there are none`()
    async throws
  {
    // Four of the buffers are on the receive ring.
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let pool = try PacketPool(.init(slots: 8, hugePages: false))
    let other = try PacketPool(.init(slots: 8, hugePages: false))
    let (device, queue) = try await Self.open(driver, pool: pool)
    let taken = try (0..<4).map { try Packet(copying: numbered($0), in: pool) }
    let packet = try Packet(copying: numbered(7), in: other)
    let back = try await queue.run { queue in try queue.trySubmit(packet) }
    #expect(back?.number == 7 && back?.isInPool == true)
    #expect(try queue.trySubmit(packet)?.number == 7)
    #expect(device.totalStatistics.copiedToSend == 0 && device.totalStatistics.packetsRefused == 2)
    _ = consume taken
    let isTaken = try await queue.run { queue in try queue.trySubmit(packet) == nil }
    #expect(isTaken)
    #expect(try queue.trySubmit(packet) == nil)
    try await eventually("both are with the device") { await driver.held() == 2 }
    #expect(device.totalStatistics.copiedToSend == 2)
    #expect(await driver.heldBytes(at: 1) == numbered(7))
    try await device.close()
    #expect(pool.free == 8)
  }

  @Test func `elsewhere there is room for as many as the mailbox holds, in order`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let (device, queue) = try await Self.open(driver)
    // The loop is held, so that it takes nothing meanwhile.
    let holding = Held()
    let held = Task { await queue.run { _ in holding.wait() } }
    while !holding.hasBegun { await Task.yield() }
    var taken = 0
    #expect(queue.transmitRoom == 256)
    while try queue.trySubmit(Packet(copying: numbered(taken), in: queue.pool)) == nil { taken += 1 }
    #expect(taken == 256 && queue.transmitRoom == 0)
    holding.end()
    await held.value
    for number in 0..<256 {
      try await eventually("the next") { await driver.held() > 0 }
      #expect(await driver.heldBytes(at: 0) == numbered(number))
      await driver.releaseFirst(1)
    }
    try await device.close()
    let statistics = device.totalStatistics
    #expect(statistics.packetsRefused == 1 && statistics.packetsFailed == 0)
  }

  @Test func `what more room would not mend is thrown`() async throws {
    let driver = ScriptedDriver(mode: .hold, mtu: 100)
    let (device, queue) = try await Self.open(driver)
    let long = try Packet(count: 200, in: queue.pool)
    var error = #expect(throws: NetworkDeviceError.self) { _ = try queue.trySubmit(long) }
    #expect(error?.code == .frameTooLong)
    error = await #expect(throws: NetworkDeviceError.self) { _ = try await queue.run { try $0.trySubmit(long) } }
    #expect(error?.code == .frameTooLong)
    try await device.close()
    let short = try Packet(count: 60, in: queue.pool)
    await Self.expectClosed { _ = try queue.trySubmit(short) }
    await Self.expectClosed { _ = try await queue.run { try $0.trySubmit(short) } }
    #expect(queue.transmitRoom == 0)
    #expect(await queue.run { $0.transmitRoom } == 0)
  }

  @Test func `a queue that has broken says why, wherever it is asked`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let (device, queue) = try await Self.open(driver)
    #expect(await driver.deliver(contentsOf: (0..<2).map { numbered($0) }) == 2)
    guard let burst = await queue.receiveBurst() else { throw NetworkDeviceError(.system, "there is no burst") }
    let packet = try Packet(copying: numbered(1), in: queue.pool)
    let cause = NetworkDeviceError(.broken, "test", offered: "the device lies")
    await driver.breakQueue(cause)
    _ = try? await queue.closed()
    #expect(throws: cause) { _ = try queue.trySubmit(packet) }
    await #expect(throws: cause) { _ = try await queue.run { try $0.trySubmit(packet) } }
    do {
      _ = try queue.trySubmit(burst)
      Issue.record("it was taken")
    } catch {
      #expect(error == cause)
    }
    _ = try? await device.close()
  }

  @Test(arguments: [ScriptedDriver.ResetBehaviour.confirm, .never])
  func `nothing is in flight when the queue has ended, wherever it is asked`(_ reset: ScriptedDriver.ResetBehaviour)
    async throws
  {
    let driver = ScriptedDriver(mode: .hold, reset: reset)
    let (device, queue) = try await Self.open(driver)
    for number in 0..<3 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
    try await eventually("they are with the device") { queue.inFlight == 3 }
    _ = try? await device.close()
    #expect(queue.inFlight == 0)
    #expect(await queue.run { $0.inFlight } == 0)
  }

  @Test func `what was left for the loop and never sent is counted as failed`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 1)
    let (device, queue) = try await Self.open(driver)
    // The loop may be quick, and find no room for the others.
    var taken: UInt64 = 0
    for number in 0..<10 {
      if try queue.trySubmit(Packet(copying: numbered(number), in: queue.pool)) == nil { taken += 1 }
    }
    try await device.close()
    let statistics = device.totalStatistics
    #expect(taken > 0 && statistics.packetsRefused == 10 - taken)
    #expect(statistics.packetsFailed + statistics.packetsReleased == taken)
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}

/// Bursts: what finds no room comes back as a burst.
@Suite(.timeLimit(.minutes(1))) struct TrySubmitBurstTests {
  /// The first byte of each frame.
  private static func numbers(_ burst: consuming PacketBurst?) -> [UInt8] {
    guard let burst else { return [] }
    return (0..<burst.count).compactMap { position in burst.withBytes(at: position) { $0.unsafeLoadUnchecked(0) } }
  }

  @Test func `the first frames are taken, and the rest comes back in order`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 5)
    let device = try await NetworkDevice.open(driver: driver)
    try await device.queues[0].run { queue in
      var burst = try queue.makeBurst(count: 8, length: 64)
      var number: UInt8 = 0
      burst.forEach { frame in
        frame.storeBytes(of: number, toByteOffset: 0, as: UInt8.self)
        number += 1
      }
      guard let rest = try queue.trySubmit(burst) else { throw NetworkDeviceError(.system, "nothing came back") }
      let count = rest.count
      let again = Self.numbers(try queue.trySubmit(rest))
      #expect(count == 3 && again == [5, 6, 7])
    }
    #expect(device.totalStatistics.packetsRefused == 6)
    for number in 0..<5 { #expect(await driver.heldBytes(at: number).first == UInt8(number)) }
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a burst of another pool is moved as far as there are buffers`() async throws {
    // Four of the buffers are on the receive ring.
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let pool = try PacketPool(.init(slots: 7, hugePages: false))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let source = ScriptedDriver(mode: .hold)
    let other = try await NetworkDevice.open(driver: source)
    #expect(await source.deliver(contentsOf: (0..<6).map { numbered($0) }) == 6)
    let left: [UInt8] = try await device.queues[0].run { queue in
      guard let burst = await other.queues[0].receiveBurst() else { return [] }
      return Self.numbers(try queue.trySubmit(burst))
    }
    #expect(left == [3, 4, 5])
    #expect(await driver.held() == 3)
    #expect(device.totalStatistics.copiedToSend == 3 && device.totalStatistics.packetsRefused == 3)
    try await device.close()
    try await other.close()
    #expect(pool.free == 7 && other.pool.free == other.pool.configuration.slots)
  }

  @Test(arguments: [true, false]) func `elsewhere a burst is taken, or finds the mailbox full and comes back whole`(
    _ isFull: Bool
  ) async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 400)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    #expect(await driver.deliver(contentsOf: (0..<4).map { numbered($0) }) == 4)
    guard let burst = await queue.receiveBurst() else { throw NetworkDeviceError(.system, "there is no burst") }
    let holding = Held()
    let held = Task { await queue.run { _ in holding.wait() } }
    while !holding.hasBegun { await Task.yield() }
    if isFull { while try queue.trySubmit(Packet(copying: numbered(99), in: queue.pool)) == nil {} }
    let left = Self.numbers(try queue.trySubmit(burst))
    #expect(left == (isFull ? [0, 1, 2, 3] : []))
    holding.end()
    await held.value
    try await eventually("what was taken is with the device") { await driver.held() == (isFull ? 256 : 4) }
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}
