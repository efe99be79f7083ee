import Netdev
import NetdevTesting
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(3))) struct ReceiptTests {
  @Test func `a receipt tells of the release of its own buffer, whatever the order of releases`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    var receipts: [Receipt] = []
    for number in 0..<8 {
      receipts.append(try await queue.submitForReceipt(Packet(copying: numbered(number), in: device.pool)))
    }
    try await eventually("all are published") { await driver.held() == 8 }
    let outcomes = receipts.map { _ in Outcome() }
    for (receipt, outcome) in zip(receipts, outcomes) {
      Task { await outcome.record { try await receipt.released } }
    }
    await turn(queue, times: 1000)
    #expect(outcomes.allSatisfy { $0.finished == 0 })
    await driver.release(at: 5)
    try await eventually("the receipt of the released buffer returns") { outcomes[5].finished == 1 }
    await turn(queue, times: 1000)
    #expect(outcomes.map { $0.finished }.reduce(0, +) == 1)
    await driver.releaseAll()
    try await eventually("all return") { outcomes.allSatisfy { $0.finished == 1 && $0.errors.isEmpty } }
    // Asked once more, and only now: it has been released.
    for receipt in receipts { try await receipt.released }
    receipts = []
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `many tasks may wait for one receipt`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let receipt = try await device.queues[0].submitForReceipt(Packet(copying: numbered(1), in: device.pool))
    let outcome = Outcome()
    for _ in 0..<32 { Task { await outcome.record { try await receipt.released } } }
    try await eventually("it is published") { await driver.held() == 1 }
    await turn(device.queues[0], times: 100)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("all of them return") { outcome.finished == 32 }
    #expect(outcome.errors.isEmpty)
    try await device.close()
  }

  @Test func `a receipt that is let go leaves nothing behind, before the release and after it`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 64)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for round in 0..<200 {
      var kept: Receipt?
      for number in 0..<8 {
        let receipt = try await queue.submitForReceipt(Packet(copying: numbered(number), in: device.pool))
        if number == 3 { kept = receipt }
      }
      try await eventually("they are published") { await driver.held() == 8 }
      if round.isMultiple(of: 2) {
        await driver.releaseAll()
        try await kept?.released
        kept = nil
      } else {
        kept = nil
        await driver.releaseAll()
      }
    }
    // Their places are used again: a send that took one of an old receipt would be let go by it.
    let outcome = Outcome()
    Task { await outcome.record { try await queue.send(Packet(copying: numbered(1), in: device.pool)) } }
    try await eventually("the send is published") { await driver.held() == 1 }
    await turn(queue, times: 100)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("the send returns") { outcome.finished == 1 }
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `closing with receipts outstanding fails each, and what was released before stays released`() async throws
  {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let first = try await queue.submitForReceipt(Packet(copying: numbered(1), in: device.pool))
    try await eventually("it is published") { await driver.held() == 1 }
    await driver.releaseAll()
    try await first.released
    let second = try await queue.submitForReceipt(Packet(copying: numbered(2), in: device.pool))
    let waiting = Outcome()
    Task { await waiting.record { try await second.released } }
    try await eventually("it is published") { await driver.held() == 1 }
    try await device.close()
    try await eventually("who waits is told") { waiting.finished == 1 }
    #expect(waiting.errors.map { $0.code } == [.closed])
    try await first.released
    await #expect(throws: NetworkDeviceError.self) { try await second.released }
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}
