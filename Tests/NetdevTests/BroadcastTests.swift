import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Consumers of which each has every packet.
@Suite(.timeLimit(.minutes(1))) struct BroadcastTests {
  @Test func `each consumer has every packet, wherever it is, and nothing is copied`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let total = 2000
    let copies = queue.broadcast(to: 3, keeping: total)
    let onLoop = Task {
      await queue.run { _ in
        var numbers: [Int] = []
        for await packet in copies[0] {
          numbers.append(packet.number)
          if numbers.count == total { break }
        }
        return numbers
      }
    }
    let elsewhere = [1, 2].map { index in
      Task.detached {
        var numbers: [Int] = []
        for await packet in copies[index] {
          numbers.append(packet.number)
          if numbers.count == total { break }
        }
        return numbers
      }
    }
    var sent = 0
    while sent < total {
      sent += await driver.deliver(contentsOf: (sent..<min(sent + 32, total)).map { numbered($0) })
    }
    #expect(await onLoop.value == Array(0..<total))
    for consumer in elsewhere { #expect(await consumer.value == Array(0..<total)) }
    #expect(copies.allSatisfy { $0.dropped == 0 } && device.pool.copies == 0)
    try await device.close()
  }

  @Test(arguments: [(16, 64), (64, 200)])
  func `who only waits for his turn loses nothing to others that are as fast`(limit: Int, total: Int) async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 1024)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let copies = queue.broadcast(to: 2, keeping: limit)
    let counts = copies.map { packets in
      Task {
        await queue.run { _ in
          var count = 0
          for await _ in packets { count += 1 }
          return count
        }
      }
    }
    // Both wait.
    await turn(queue, times: 20)
    let sent = await driver.deliver(contentsOf: (0..<total).map { numbered($0) })
    await turn(queue, times: 50)
    try await device.close()
    for count in counts { #expect(await count.value == sent) }
    #expect(copies.map(\.dropped) == [0, 0])
  }

  @Test func `who is too far behind loses the oldest, and his sequence counts them`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let copies = device.queues[0].broadcast(to: 2, keeping: 4)
    for number in 0..<10 {
      await driver.deliver(numbered(number))
      var fast = copies[0].makeAsyncIterator()
      #expect(await fast.next()?.number == number)
    }
    #expect(copies[0].dropped == 0 && copies[1].dropped == 6)
    var slow = copies[1].makeAsyncIterator()
    for number in 6..<10 { #expect(await slow.next()?.number == number) }
    try await device.close()
    #expect(await slow.next() == nil)
    var fast = copies[0].makeAsyncIterator()
    #expect(await fast.next() == nil)
  }

  @Test func `one that is cancelled leaves the others what comes, and one that goes keeps nothing`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    var copies = device.queues[0].broadcast(to: 3)
    let fetching = Task { [first = copies[0]] in for await _ in first {} }
    let waiting = Task { [second = copies[1]] in
      var numbers: [Int] = []
      for await packet in second { numbers.append(packet.number) }
      return numbers
    }
    await driver.deliver(numbered(1))
    try await eventually("it is taken") { device.totalStatistics.packetsReceived == 1 }
    fetching.cancel()
    await fetching.value
    await driver.deliver(numbered(2))
    try await eventually("that is taken too") { device.totalStatistics.packetsReceived == 2 }
    copies = []
    try await device.close()
    #expect(await waiting.value == [1, 2])
    try await eventually("nothing is kept") { device.pool.free == device.pool.configuration.slots }
  }

  @Test(arguments: [true, false]) func `who leaves a loop over it finds the rest in the next`(_ isOnLoop: Bool)
    async throws
  {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let copies = queue.broadcast(to: 2)
    @Sendable func takeAll(_ copy: BroadcastPackets, _ isolation: isolated (any Actor)?) async -> [Int] {
      var numbers: [Int] = []
      // A loop a packet, and in between an iterator that fetches nothing.
      while numbers.count < 50 {
        for await packet in copy {
          numbers.append(packet.number)
          break
        }
        _ = copy.makeAsyncIterator()
      }
      return numbers
    }
    #expect(await driver.deliver(contentsOf: (0..<50).map { numbered($0) }) == 50)
    for copy in copies {
      let numbers = isOnLoop ? await queue.run { await takeAll(copy, $0) } : await takeAll(copy, nil)
      #expect(numbers == Array(0..<50) && copy.dropped == 0)
    }
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `an iterator that waits already is told of packets that another one of its sequence left`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let copies = device.queues[0].broadcast(to: 1)
    // Both wait: one fetches, and the other for it.
    let consumers = (0..<2).map { _ in
      Task {
        var packets = copies[0].makeAsyncIterator()
        return await packets.next()?.number
      }
    }
    await turn(device.queues[0], times: 20)
    #expect(await driver.deliver(contentsOf: (0..<2).map { numbered($0) }) == 2)
    var numbers: Set<Int> = []
    for consumer in consumers { if let number = await consumer.value { numbers.insert(number) } }
    #expect(numbers == [0, 1])
    try await device.close()
  }

  @Test(arguments: [1, 4, 64]) func `the limit is exact, and it is the oldest that are lost, for one who has begun too`(
    _ limit: Int
  ) async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let copies = device.queues[0].broadcast(to: 2, keeping: limit)
    var (fast, slow) = (copies[0].makeAsyncIterator(), copies[1].makeAsyncIterator())
    var next = 0
    func deliver(_ count: Int) async {
      for _ in 0..<count {
        #expect(await driver.deliver(numbered(next)))
        #expect(await fast.next()?.number == next)
        next += 1
      }
    }
    await deliver(limit)
    // The first is his; limit - 1 are left of which he knows.
    #expect(await slow.next()?.number == 0)
    #expect(copies[1].dropped == 0)
    await deliver(limit + 3)
    #expect(copies[1].dropped == limit + 2)
    try await device.close()
    for number in (next - limit)..<next { #expect(await slow.next()?.number == number) }
    #expect(await slow.next() == nil)
  }

  @Test func `nothing is kept for a sequence that has gone, while others go on`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    var copies = queue.broadcast(to: 2)
    let staying = copies[0]
    var packets = staying.makeAsyncIterator()
    await turn(queue, times: 10)
    let free = device.pool.free
    var next = 0
    func deliver(_ count: Int) async {
      for _ in 0..<count {
        #expect(await driver.deliver(numbered(next)))
        #expect(await packets.next()?.number == next)
        next += 1
      }
    }
    await deliver(100)
    #expect(device.pool.free < free)
    // What was kept for the other goes with it, and from then on nothing is. Less than what the ring had may be posted.
    copies = []
    try await eventually("it has gone", within: .seconds(20)) { device.pool.free >= free }
    await deliver(100)
    try await eventually("nothing is kept", within: .seconds(20)) { device.pool.free >= free }
    try await device.close()
    withExtendedLifetime(staying) {}
  }
}
