import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import TestSupport
import Testing
import Virtio
import VirtioNet

@testable import Netdev

/// What queues count: right, complete, and read without a queue noticing.
@Suite(.timeLimit(.minutes(3))) struct StatisticsTests {
  /// A loopback device through which some frames went, with loops that sleep.
  private func idle(queues: Int = 1) async throws -> NetworkDevice {
    let device = try await NetworkDevice.open("loopback:?queues=\(queues)")
    for queue in device.queues {
      for number in 0..<(10 * (queue.index + 1)) {
        try await queue.send(Packet(copying: numbered(number), in: queue.pool))
        for await _ in queue.packets { break }
      }
    }
    try await eventually("the loops sleep") {
      let before = device.queues.map { $0.loop.statistics }
      try? await Task.sleep(for: .milliseconds(20))
      return device.queues.map { $0.loop.statistics } == before
    }
    return device
  }

  @Test func `reading an idle device a thousand times makes no loop turn, wake or run a job`() async throws {
    let device = try await idle(queues: 2)
    let before = device.queues.map { $0.loop.statistics }
    let first = device.statistics
    for _ in 0..<1000 {
      #expect(device.statistics == first)
      #expect(device.totalStatistics.packetsReceived == 30)
    }
    // Had one of them been woken, it would have turned by now.
    try await Task.sleep(for: .milliseconds(20))
    #expect(device.queues.map { $0.loop.statistics } == before)
    try await device.close()
  }

  @Test func `the numbers of an idle queue are the same on its loop and elsewhere, and stay when it is closed`()
    async throws
  {
    let device = try await idle()
    let queue = device.queues[0]
    var elsewhere = queue.statistics
    #expect(elsewhere.packetsSubmitted == 10)
    #expect(elsewhere.packetsReceived == 10)
    #expect(elsewhere.bytesReceived == 640)
    #expect(elsewhere.bytesSubmitted == 640)
    #expect(elsewhere.residency.total > 0)
    let here = await queue.run { queue in queue.statistics }
    // To come to the loop is a turn.
    elsewhere.activeTurns = here.activeTurns
    #expect(here == elsewhere)
    try await device.close()
    let closed = device.statistics[0]
    #expect(closed.packetsReleased &+ closed.packetsFailed == closed.packetsSubmitted)
    #expect(closed.driver == here.driver)
  }

  @Test func `read while a queue works, no number shrinks and nothing is released before it is submitted`()
    async throws
  {
    let device = try await NetworkDevice.open("loopback:")
    let runner = Task {
      try await device.run { queue in
        for number in 0..<64 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
        for await packet in queue.packets { try await queue.submit(packet) }
      }
    }
    let enough = repetitions(500_000)
    var last = device.statistics[0]
    while last.packetsReceived < UInt64(enough) {
      let now = device.statistics[0]
      #expect(now.packetsReleased <= now.packetsSubmitted)
      #expect(
        now.packetsReceived >= last.packetsReceived && now.packetsReleased >= last.packetsReleased
          && now.bytesReceived >= last.bytesReceived && now.residency.total >= last.residency.total)
      last = now
    }
    try await device.close()
    _ = await runner.result
  }

  @Test func `a total is the sum of its queues, in every number`() {
    var first = QueueStatistics()
    var second = QueueStatistics()
    Self.fill(&first, from: 100)
    Self.fill(&second, from: 10_000)
    var sum = first
    sum += second
    let (a, b, c) = (Self.numbers(first), Self.numbers(second), Self.numbers(sum))
    #expect(a.count == 33)
    for (name, value) in c { #expect(value == (a[name] ?? 0) &+ (b[name] ?? 0) && a[name] != 0, "\(name)") }
    #expect(sum.residency.counts == zip(first.residency.counts, second.residency.counts).map { $0 + $1 })
  }

  @Test func `every number has a word of its own, and is read where it was counted`() {
    let counters = QueueCounters()
    defer { counters.free() }
    for (index, number) in Self.counters.enumerated() { counters[dynamicMember: number] = 1 + UInt64(index) }
    counters.failedInFlight = 1000
    counters.addResidency(bucket: 0)
    let snapshot = counters.snapshot
    for (index, number) in Self.counters.enumerated() where number != \.starved {
      #expect(snapshot[keyPath: number] == 1 + UInt64(index), "number \(index)")
    }
    #expect(snapshot.starved == counters.starved + snapshot.driver.receiveRingEmpty)
    #expect(snapshot.residency.total == 1)
    #expect(counters.failedInFlight == 1000)
    // There is nothing among the numbers that is none, and none that is not there.
    #expect(QueueStatistics.numberCount == Self.counters.count)
  }

  @Test func `what a driver counts is copied whole`() {
    var statistics = QueueStatistics()
    Self.fill(&statistics, from: 1)
    let counters = QueueCounters()
    counters.driver = statistics.driver
    #expect(counters.driver == statistics.driver)
    #expect(counters.snapshot.driver == statistics.driver)
    counters.free()
  }

  @Test func `doorbells that the device did not want are counted`() async throws {
    let lying = try await Lying()
    try await lying.queue.submit(Packet(copying: numbered(0), in: lying.pool))
    try await eventually("it is published") { await lying.held() == 1 }
    let before = await lying.queue.run { queue in queue.statistics.driver }
    await lying.side.perform { pair in
      pair.transmit.ring.availableEvent = pair.transmit.ring.availableIndex &+ 100
    }
    for number in 1..<6 {
      try await lying.queue.submit(Packet(copying: numbered(number), in: lying.pool))
      try await eventually("it is published") { await lying.held() == number + 1 }
    }
    let after = await lying.queue.run { queue in queue.statistics.driver }
    #expect(after.kicksSuppressed == before.kicksSuppressed + 5)
    #expect(after.kicks == before.kicks)
    await lying.side.perform { $0.releaseAll() }
    try await lying.closeAndCheck()
  }

  @Test func `interrupts that a polling queue did not need are counted, those that came are not`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for number in 0..<5 {
      try await queue.submit(Packet(copying: numbered(number), in: device.pool))
      try await eventually("it is published") { await driver.held() == 1 }
      await driver.releaseAll()
      try await eventually("it is taken back") { queue.statistics.packetsReleased == number + 1 }
    }
    #expect(queue.statistics.interruptsSuppressed == 0)
    try await device.close()

    let busy = try await NetworkDevice.open("loopback:")
    try await busy.run { queue in
      for number in 0..<64 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
      var received = 0
      for await packet in queue.packets {
        received += 1
        if received == 64_000 { return }
        try await queue.submit(packet)
      }
    }
    // A thousand bursts each way, and hardly ever asleep.
    #expect(busy.totalStatistics.interruptsSuppressed > 1000)
    #expect(busy.totalStatistics.driver.interrupts < 200)
  }

  @Test func `bytes of every frame count once: alone in its buffer or not, sent again or not`() async throws {
    let lying = try await Lying.lookedFor()
    let queue = lying.queue
    var kept: Packet? = try Packet(copying: numbered(1, count: 300), in: lying.pool)
    // Somebody else holds it: it goes as a chain of two.
    if let kept { try await queue.submit(kept) }
    try await queue.submit(Packet(copying: numbered(2, count: 100), in: lying.pool))
    try await eventually("they are published") { await lying.held() == 2 }
    try await lying.loseAndRegain()
    try await eventually("they are published again") { await lying.held() == 2 }
    let statistics = await queue.run { queue in queue.statistics }
    #expect(statistics.bytesSubmitted == 400)
    #expect(statistics.driver.resubmitted == 2)
    #expect(kept?.count == 300)
    kept = nil
    await lying.side.perform { $0.releaseAll() }
    try await lying.closeAndCheck()
  }

  @Test func `frames that nobody had asked for when the queue ended are counted as dropped`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for number in 0..<7 { #expect(await driver.deliver(numbered(number))) }
    await queue.run { queue in
      // A burst comes from the driver, one frame of it is fetched.
      for await _ in queue.packets { break }
    }
    try await device.close()
    let statistics = queue.statistics
    #expect(statistics.packetsReceived == 7)
    #expect(statistics.droppedAtEnd == 6)
  }

  // MARK: Every number

  /// By their paths.
  private static var counters: [WritableKeyPath<QueueStatistics, UInt64>] {
    [
      \.packetsReceived, \.packetsSubmitted, \.packetsMoved, \.packetsReleased, \.packetsFailed, \.droppedAtEnd,
      \.ringFull,
      \.submittedOutside, \.outsideWakeups, \.starved, \.copiedToSend, \.quarantined, \.interruptsSuppressed,
      \.loopStalls, \.activeTurns, \.driver.kicks, \.driver.kicksSuppressed, \.driver.interrupts,
      \.driver.bytesReceived, \.driver.bytesSubmitted, \.driver.receiveDropsChecksum,
      \.driver.receiveDropsSegmentation, \.driver.receiveDropsLength, \.driver.recoveries, \.driver.resubmitted,
      \.driver.quarantined, \.driver.receiveRingEmpty, \.poolEmpty, \.packetsRefused, \.sendersWaiting,
      \.copiedToChange, \.senderWaitTime,
    ]
  }

  /// Gives each number a value of its own.
  private static func fill(_ statistics: inout QueueStatistics, from first: UInt64) {
    for (index, counter) in counters.enumerated() { statistics[keyPath: counter] = first + UInt64(index) }
    for bucket in statistics.residency.counts.indices { statistics.residency.counts[bucket] = first + UInt64(bucket) }
  }

  /// The numbers that there are, by their paths.
  private static func numbers(_ statistics: QueueStatistics) -> [String: UInt64] {
    var numbers: [String: UInt64] = ["residency": statistics.residency.total]
    for field in Mirror(reflecting: statistics).children {
      if let value = field.value as? UInt64 { numbers[field.label ?? ""] = value }
    }
    for field in Mirror(reflecting: statistics.driver).children {
      if let value = field.value as? UInt64 { numbers["driver.\(field.label ?? "")"] = value }
    }
    return numbers
  }
}
