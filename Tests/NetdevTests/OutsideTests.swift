import Glibc
import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Code that uses a queue from elsewhere than its loop: as right as on the loop, and nearly as cheap.
@Suite(.timeLimit(.minutes(4))) struct OutsideTests {
  /// Frames go round: received, counted and submitted again, outside the loop.
  private nonisolated(nonsending) static func goRound(_ queue: NetworkQueue, rounds: Int, frames: Int) async throws {
    var expected = 0
    for await packet in queue.packets {
      #expect(packet.number == expected % frames)
      expected += 1
      if expected == rounds * frames { return }
      try await queue.submit(packet)
    }
  }

  // That a consumer is too slow, and what it left is taken after a millisecond, is another matter, and another test's: here the
  // loop's clock stands.
  @Test func `a plain task receives and submits with at most one wake-up for 32 packets`() async throws {
    let pool = try PacketPool()
    try await StillLoop.withDevice(ScriptedDriver(mode: .loopback), pool: pool) { device in
      let queue = device.queues[0]
      let frames = 64
      for number in 0..<frames { try await queue.submit(Packet(copying: numbered(number), in: pool)) }
      let before = queue.statistics
      try await Self.goRound(queue, rounds: 500, frames: frames)
      let after = queue.statistics
      let submitted = after.submittedOutside - before.submittedOutside
      let wakes = after.outsideWakeups - before.outsideWakeups
      #expect(submitted == UInt64(500 * frames - 1))
      #expect(wakes * 32 <= submitted)
    }
    #expect(pool.copies == 0)
    #expect(pool.free == pool.configuration.slots)
  }

  @MainActor @Test func `the main actor receives and submits with at most one wake-up for 32 packets`() async throws {
    let pool = try PacketPool()
    try await StillLoop.withDevice(ScriptedDriver(mode: .loopback), pool: pool) { device in
      let queue = device.queues[0]
      for number in 0..<64 { try await queue.submit(Packet(copying: numbered(number), in: pool)) }
      let before = queue.statistics
      var seen = 0
      for await packet in queue.packets {
        MainActor.assertIsolated()
        #expect(packet.number == seen % 64)
        seen += 1
        if seen == 32_000 { break }
        try await queue.submit(packet)
      }
      let after = queue.statistics
      let submitted = after.submittedOutside - before.submittedOutside
      #expect(submitted == 31_999)
      #expect((after.outsideWakeups - before.outsideWakeups) * 32 <= submitted)
    }
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `leaving a loop outside loses no packet and changes no order`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for number in 0..<200 { #expect(await driver.deliver(numbered(number))) }
    var seen: [Int] = []
    while seen.count < 200 {
      for await packet in queue.packets {
        seen.append(packet.number)
        if seen.count % 7 == 0 || seen.count == 200 { break }
      }
    }
    #expect(seen == Array(0..<200))
    // What was fetched ahead and never used does not keep the buffers of a closed device.
    for number in 0..<20 { #expect(await driver.deliver(numbered(number))) }
    for await _ in queue.packets { break }
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  /// Takes packets until cancelled, or until the queue ends; it leaves the sequence and comes back every so often.
  private nonisolated(nonsending) static func consume(
    _ queue: NetworkQueue, _ seen: Tally, on thread: LoopExecutor, leavingAfter count: Int
  ) async {
    while !Task.isCancelled {
      var left = count
      var isEnded = true
      for await packet in queue.packets {
        guard thread.isOnLoop else {
          Issue.record("a packet comes on another thread")
          return
        }
        seen.add(packet.number)
        left -= 1
        if left == 0 {
          isEnded = false
          break
        }
      }
      if isEnded { return }
    }
  }

  @Test func `four consumers on four threads: each packet to exactly one, none lost when they leave or are cancelled`()
    async throws
  {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .loopback))
    let queue = device.queues[0]
    let total = repetitions(1_000_000)
    let seen = Tally(total)
    // Threads of their own: there may be fewer processors, and no more threads in the runtime's pool.
    let executors = try (0..<4).map { LoopTaskExecutor(loop: try LoopExecutor(name: "consumer \($0)")) }
    var threads: Set<UInt> = [await queue.run { _ in pthread_self() }]
    for executor in executors {
      threads.insert(await Task(executorPreference: executor) { pthread_self() }.value)
    }
    #expect(threads.count == 5)
    func start(_ consumer: Int) -> Task<Void, Never> {
      let executor = executors[consumer]
      return Task(executorPreference: executor) {
        await Self.consume(queue, seen, on: executor.loop, leavingAfter: 100 + 37 * consumer)
      }
    }
    var consumers = (0..<4).map(start)
    var cancelled: [Task<Void, Never>] = []
    for value in 0..<total {
      try await queue.submit(Packet(copying: numbered(value, count: 16), in: device.pool))
      // Each in its turn gives up, several times, and another takes its place.
      if value % (total / 20) == total / 40 {
        let consumer = cancelled.count % 4
        consumers[consumer].cancel()
        cancelled.append(consumers[consumer])
        consumers[consumer] = start(consumer)
      }
    }
    #expect(cancelled.count == 20)
    for consumer in cancelled { await consumer.value }
    // At last one that is not replaced, and what it had is for the others.
    consumers[3].cancel()
    try await eventually("all are received") { seen.total == total }
    try await device.close()
    for consumer in consumers { await consumer.value }
    #expect(seen.allOnce)
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  /// Invariant 4.
  @Test func `a full ring holds back submitters outside, and keeps their order`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let total = 1000
    let pool = try PacketPool(.init(slots: 2048))
    let submitting = Outcome()
    Task {
      await submitting.record {
        for number in 0..<total { try await queue.submit(Packet(copying: numbered(number), in: pool)) }
      }
    }
    try await eventually("the submitter is held back") { queue.statistics.ringFull == 1 }
    #expect(submitting.finished == 0)
    for number in 0..<total {
      try await eventually("frame \(number) is published") { await driver.held() > 0 }
      #expect(await driver.heldBytes(at: 0) == numbered(number))
      await driver.release(at: 0)
    }
    try await eventually("the submitter is through") { submitting.finished == 1 }
    #expect(submitting.errors.isEmpty)
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `what a task submits outside goes before what it then sends on the loop`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for round in 0..<100 {
      for number in 0..<5 { try await queue.submit(Packet(copying: numbered(number), in: device.pool)) }
      let receipt = try await queue.submitForReceipt(Packet(copying: numbered(5), in: device.pool))
      try await eventually("all are published") { await driver.held() == 6 }
      for number in 0..<6 { #expect(await driver.heldBytes(at: number) == numbered(number), "round \(round)") }
      await driver.releaseAll()
      try await receipt.released
    }
    try await device.close()
  }

  @Test func `a slow consumer's submission is published although it does not come back`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for number in 0..<10 { #expect(await driver.deliver(numbered(number))) }
    var iterator = queue.packets.makeAsyncIterator()
    for number in 0..<3 {
      guard let packet = await iterator.next() else { break }
      try await queue.submit(packet)
      try await eventually("it is published") { await driver.held() == number + 1 }
    }
    try await device.close()
  }

  @Test func `what lies in the mailbox when the queue ends fails and is back in its pool`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let submitting = Outcome()
    let pool = device.pool
    Task {
      await submitting.record {
        for number in 0..<100_000 { try await queue.submit(Packet(copying: numbered(number), in: pool)) }
      }
    }
    try await eventually("the submitter is held back") { queue.statistics.ringFull == 1 }
    try await device.close()
    try await eventually("it is told") { submitting.finished == 1 }
    #expect(submitting.errors.map { $0.code } == [.closed])
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    // Those in the ring, and those that had been left before it was full.
    #expect(queue.statistics.packetsFailed >= 4)
    await #expect(throws: NetworkDeviceError.self) {
      try await queue.submit(Packet(copying: numbered(1), in: device.pool))
    }
  }
}
