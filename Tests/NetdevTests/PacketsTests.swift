import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Invariant 12: consumers of a queue compete, and what was fetched ahead belongs to the queue.
@Suite(.timeLimit(.minutes(3))) struct PacketsTests {
  @Test func `leaving a loop loses no packet: what was fetched ahead belongs to the queue`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    for value in 0..<100 { #expect(await driver.deliver(numbered(value))) }
    try await device.run { queue in
      var seen: [Int] = []
      while seen.count < 100 {
        for await packet in queue.packets {
          seen.append(packet.number)
          if seen.count % 7 == 0 || seen.count == 100 { break }
        }
      }
      #expect(seen == Array(0..<100))
    }
  }

  @Test func `four consumers compete and each packet goes to exactly one`() async throws {
    let driver = ScriptedDriver(mode: .loopback)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let total = 20_000
    let seen = Tally(total)
    var consumers: [Task<Void, Never>] = []
    for _ in 0..<4 {
      consumers.append(Task { for await packet in queue.packets { seen.add(packet.number) } })
    }
    for value in 0..<total { try await queue.submit(Packet(copying: numbered(value), in: device.pool)) }
    try await eventually("all are received") { seen.total == total }
    try await device.close()
    for consumer in consumers { await consumer.value }
    #expect(seen.allOnce)
  }

  @Test func `a cancelled consumer ends, and its packets go to the next`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for round in 0..<50 {
      let consumer = Task { () -> [Int] in
        var seen: [Int] = []
        for await packet in queue.packets { seen.append(packet.number) }
        return seen
      }
      for value in 0..<10 { await driver.deliver(numbered(value)) }
      if round % 2 == 0 { await Task.yield() }
      consumer.cancel()
      var seen = await consumer.value
      while seen.count < 10 {
        for await packet in queue.packets {
          seen.append(packet.number)
          if seen.count == 10 { break }
        }
      }
      #expect(seen == Array(0..<10))
    }
    try await device.close()
  }

  /// Invariant 13.
  @Test func `a consumer that waits in its body stops neither completions nor other tasks of its loop`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let taken = Tally(1)
    let (permits, permit) = AsyncStream.makeStream(of: Void.self)
    let runner = Task {
      try await device.run { queue in
        var permits = permits.makeAsyncIterator()
        for await _ in queue.packets {
          taken.add(0)
          await permits.next()
          try await Task.sleep(for: .milliseconds(100))
        }
      }
    }
    for value in 0..<5 { await driver.deliver(numbered(value)) }
    try await eventually("the body waits with its first packet") { taken.total == 1 }
    // It waits until it is told otherwise: if sends waited for it, none of these would return.
    for value in 0..<500 { try await queue.send(Packet(copying: numbered(value), in: device.pool)) }
    #expect(taken.total == 1)
    permit.yield()
    permit.yield()
    try await eventually("it goes on") { taken.total == 3 }
    permit.finish()
    try await device.close()
    _ = await runner.result
  }

  /// Invariant 1.
  @Test func `a queue that starves for buffers wakes when one returns, wherever that happens`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 16))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    var kept: [Packet] = []
    for value in 0..<16 { #expect(await driver.deliver(numbered(value))) }
    for await packet in queue.packets {
      kept.append(packet)
      if kept.count == 16 { break }
    }
    await turn(queue, times: 10)
    #expect(await driver.deliver(numbered(1)) == false)
    #expect(queue.statistics.starved > 0)
    kept = []
    try await eventually("buffers are posted again") { await driver.deliver(numbered(1)) }
    try await device.close()
    #expect(device.pool.free == 16)
  }

  @Test func `bursts carry frames, drop what is filtered out, and submit the rest in order`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    for value in 0..<100 { await driver.deliver(numbered(value)) }
    try await device.run { queue in
      var seen = 0
      while var burst = await queue.receiveBurst() {
        #expect(burst.count <= 64)
        seen += burst.count
        burst.filter { frame in
          frame.storeBytes(of: 0xaa, toByteOffset: 60, as: UInt8.self)
          return frame.byteCount == 64 && frame.bytes.unsafeLoadUnchecked(0) % 2 == 0
        }
        try await queue.submit(burst)
        if seen == 100 { break }
      }
      #expect(seen == 100)
      // Their turn ends, and with it they are published.
      await Task.yield()
      for _ in 0..<1000 where await driver.held() < 50 { await Task.yield() }
      #expect(await driver.held() == 50)
      for position in 0..<50 {
        var expected = numbered(position * 2)
        expected[60] = 0xaa
        #expect(await driver.heldBytes(at: position) == expected)
      }
    }
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a burst dropped on another thread returns its frames and lets the queue go`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for value in 0..<10 { await driver.deliver(numbered(value)) }
    func drop(_ burst: consuming PacketBurst) {}
    if let burst = await queue.receiveBurst() { drop(burst) }
    if let late = await {
      await driver.deliver(numbered(1)); return await queue.receiveBurst()
    }() {
      try await device.close()
      drop(late)
    }
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }
}
