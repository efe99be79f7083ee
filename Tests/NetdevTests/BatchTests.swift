import Netdev
import NetdevTesting
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(4))) struct BatchTests {
  @Test(arguments: [1, 16, 100])
  func `a batch is published in order and returns when the last of its buffers is released`(count: Int) async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let packets = try (0..<count).map { try Packet(copying: numbered($0), in: device.pool) }
    let outcome = Outcome()
    Task { await outcome.record { try await queue.send(contentsOf: packets) } }
    var order: [[UInt8]] = []
    while order.count < count {
      try await eventually("another is published") { await driver.held() > 0 }
      await turn(queue, times: 20)
      #expect(outcome.finished == 0)
      order.append(await driver.heldBytes(at: 0))
      await driver.release(at: 0)
    }
    try await eventually("the batch returns") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    #expect(order == (0..<count).map { numbered($0) })
    try await device.close()
  }

  @Test func `a batch does not return for a neighbour's release, nor before one that is held`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    try await queue.submit(Packet(copying: numbered(99), in: device.pool))
    let packets = try (0..<40).map { try Packet(copying: numbered($0), in: device.pool) }
    let outcome = Outcome()
    Task { await outcome.record { try await queue.send(contentsOf: packets) } }
    try await eventually("all are published") { await driver.held() == 41 }
    // Out of order: all but the first of the batch.
    for _ in 0..<39 { await driver.release(at: 2) }
    await driver.release(at: 0)
    await turn(queue, times: 1000)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("the batch returns") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await device.close()
  }

  @Test func `a batch cancelled half way has sent what it published, waits for it, and says so`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let packets = try (0..<20).map { try Packet(copying: numbered($0), in: device.pool) }
    let outcome = Outcome()
    let task = Task { await outcome.record { try await queue.send(contentsOf: packets) } }
    try await eventually("the ring is full") { queue.statistics.ringFull == 1 }
    task.cancel()
    await turn(queue, times: 1000)
    #expect(outcome.finished == 0)
    #expect(await driver.held() == 8)
    await driver.releaseAll()
    try await eventually("it returns") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.cancelled])
    #expect(queue.statistics.packetsSubmitted == 8)
    try await device.close()
  }

  @Test func `closing with a batch in flight fails it once, and every buffer is back`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let outcome = Outcome()
    let pool = device.pool
    Task {
      await outcome.record {
        try await queue.send(contentsOf: (0..<20).map { try Packet(copying: numbered($0), in: pool) })
      }
    }
    try await eventually("the ring is full") { queue.statistics.ringFull == 1 }
    try await device.close()
    try await eventually("it returns") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.closed])
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test func `a burst is sent and returns when the device has released all of it`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    for number in 0..<32 { #expect(await driver.deliver(numbered(number))) }
    let outcome = Outcome()
    let queue = device.queues[0]
    Task {
      await outcome.record {
        guard let burst = await queue.receiveBurst() else { return }
        try await queue.send(burst)
      }
    }
    try await eventually("all are published") { await driver.held() == 32 }
    for _ in 0..<31 { await driver.release(at: 1) }
    await turn(queue, times: 200)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("it returns") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}
