#if Metrics
import CoreMetrics
import Glibc
import LibeventConcurrency
import MetricsTestKit
import NetdevTesting
import Synchronization
import TestSupport
import Testing

@testable import Netdev
@testable import NetdevMetrics

/// What a device counts, in swift-metrics.
@Suite(.timeLimit(.minutes(3))) struct NetworkDeviceMetricsTests {
  private func open(_ driver: ScriptedDriver, queues: Int = 1) async throws -> NetworkDevice {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = queues
    return try await NetworkDevice.open(driver: driver, configuration: configuration)
  }

  private func submit(_ count: Int, to queue: NetworkQueue) async throws {
    for _ in 0..<count { try await queue.submit(Packet(count: 64, in: queue.pool)) }
  }

  /// Waits until no loop of the device turns any more.
  private func idle(_ device: NetworkDevice) async throws {
    try await eventually("the loops sleep") {
      let before = device.queues.map { $0.loop.statistics }
      try? await Task.sleep(for: .milliseconds(20))
      return device.queues.map { $0.loop.statistics } == before
    }
  }

  private func total(_ factory: TestMetrics, _ name: String, queue: Int = 0) -> Int64? {
    let dimensions = [("device", "scripted"), ("queue", String(queue))]
    return try? factory.expectCounter("netdev.\(name)", dimensions).totalValue
  }

  @Test func `every number of the statistics is reported, under its own name`() {
    var statistics = QueueStatistics()
    statistics.packetsReceived = 1
    statistics.packetsSubmitted = 2
    statistics.packetsReleased = 3
    statistics.packetsFailed = 4
    statistics.ringFull = 5
    statistics.starved = 6
    statistics.copiedToSend = 7
    statistics.quarantined = 8
    statistics.activeTurns = 9
    statistics.driver.kicks = 10
    statistics.driver.kicksSuppressed = 11
    statistics.driver.interrupts = 12
    statistics.driver.bytesReceived = 13
    statistics.driver.receiveDropsChecksum = 14
    statistics.driver.recoveries = 15
    statistics.driver.resubmitted = 16
    statistics.driver.quarantined = 17
    statistics.driver.bytesSubmitted = 18
    statistics.driver.receiveDropsSegmentation = 19
    statistics.droppedAtEnd = 20
    statistics.submittedOutside = 21
    statistics.outsideWakeups = 22
    statistics.interruptsSuppressed = 23
    statistics.loopStalls = 24
    statistics.driver.receiveDropsLength = 25
    statistics.driver.receiveRingEmpty = 26
    statistics.poolEmpty = 27
    statistics.packetsRefused = 28
    statistics.sendersWaiting = 29
    statistics.packetsMoved = 31
    statistics.copiedToChange = 30
    var fields: [String: UInt64] = [:]
    var others: [String] = []
    for field in Mirror(reflecting: statistics).children {
      if let value = field.value as? UInt64, field.label != "senderWaitTime" {
        fields[field.label ?? ""] = value
      } else {
        others.append(field.label ?? "")
      }
    }
    // These are no counts: each has a test of its own, or is the time of the reading.
    #expect(others.sorted() == ["driver", "reading", "residency", "senderWaitTime"])
    for field in Mirror(reflecting: statistics.driver).children {
      let name = field.label ?? ""
      fields[fields[name] == nil ? name : "driver.\(name)"] = field.value as? UInt64
    }
    // No two are the same, so a number under another's name does not pass.
    #expect(!fields.values.contains(0) && Set(fields.values).count == fields.count)
    let reported = (QueueMetrics.numbers + QueueMetrics.levels).map { ($0.name, $0.value(statistics)) }
    #expect(Dictionary(reported, uniquingKeysWith: { first, _ in first }) == fields)
    #expect(reported.count == fields.count)
  }

  @Test func `each queue's counters say what its statistics say, and a second report adds only what is new`()
    async throws
  {
    let driver = ScriptedDriver(mode: .loopback, queuePairs: 2)
    let device = try await open(driver, queues: 2)
    let factory = TestMetrics()
    let metrics = NetworkDeviceMetrics(device, factory: factory)
    let consumers = device.queues.map { queue in Task { for await _ in queue.packets {} } }
    for (queue, count) in [(0, 5), (1, 12)] { try await submit(count, to: device.queues[queue]) }
    for round in 1...3 {
      for (index, count) in [(0, 5), (1, 12)] {
        try await eventually("the frames are back") {
          let statistics = device.queues[index].statistics
          return statistics.packetsReleased == UInt64(round * count)
            && statistics.packetsReceived == UInt64(round * count)
        }
      }
      // What a driver counts is there from the end of its turn on.
      try await eventually("the turn is over") {
        device.queues.allSatisfy { $0.statistics.bytesReceived == $0.statistics.packetsReceived * 64 }
      }
      try await idle(device)
      metrics.report()
      metrics.report()
      for index in 0..<2 {
        let statistics = device.queues[index].statistics
        for (name, value) in QueueMetrics.numbers where name != "activeTurns" {
          #expect(total(factory, name, queue: index) == Int64(value(statistics)), "\(name) of queue \(index)")
        }
        #expect(total(factory, "activeTurns", queue: index) ?? 0 > 0)
        let dimensions = [("device", "scripted"), ("queue", String(index))]
        #expect(try factory.expectGauge("netdev.driver.quarantined", dimensions).lastValue == 0)
      }
      #expect(total(factory, "packetsReceived", queue: 1) == Int64(round * 12))
      #expect(total(factory, "bytesReceived", queue: 0) == Int64(round * 5 * 64))
      guard round < 3 else { break }
      for (queue, count) in [(0, 5), (1, 12)] { try await submit(count, to: device.queues[queue]) }
    }
    try await device.close()
    for consumer in consumers { await consumer.value }
  }

  @Test func `residency is reported by quantiles of the frames since the last report, in nanoseconds`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await open(driver)
    let queue = device.queues[0]
    let factory = TestMetrics()
    let metrics = NetworkDeviceMetrics(device, factory: factory)
    func gauge(_ quantile: String) throws -> Double? {
      let dimensions = [("device", "scripted"), ("queue", "0"), ("quantile", quantile)]
      return try factory.expectGauge("netdev.residency", dimensions).lastValue
    }
    metrics.report()
    // Nothing was sampled: there is nothing to say.
    #expect(try gauge("0.5") == nil && total(factory, "residencySamples") == 0)
    for hold in [Duration.zero, .milliseconds(40)] {
      for _ in 0..<10 {
        let receipt = try await queue.submitForReceipt(Packet(count: 64, in: device.pool))
        try await eventually("it is published") { await driver.held() == 1 }
        try await Task.sleep(for: hold)
        await driver.releaseAll()
        try await receipt.released
      }
      metrics.report()
      metrics.report()
    }
    #expect(total(factory, "residencySamples") == 20)
    // Of the second ten alone: of all twenty, the median would be one of the first.
    for (name, _) in ResidencyMetrics.quantiles { #expect(try gauge(name) ?? 0 >= 40_000_000, "\(name)") }
    #expect(try gauge("0.5") ?? 0 <= gauge("1") ?? 0)
    try await device.close()
  }

  @Test func `the pool is a gauge and two counters of its device`() async throws {
    let device = try await open(ScriptedDriver(mode: .hold))
    let factory = TestMetrics()
    let metrics = NetworkDeviceMetrics(device, factory: factory)
    let first = try Packet(count: 64, in: device.pool)
    var second = first
    second.withMutableBytes { _ in }
    metrics.report()
    metrics.report()
    let dimensions = [("device", "scripted")]
    #expect(try factory.expectGauge("netdev.available", dimensions).lastValue == Double(device.pool.available))
    #expect(try factory.expectCounter("netdev.copies", dimensions).totalValue == 1)
    #expect(try factory.expectCounter("netdev.linearCopies", dimensions).totalValue == 0)
    #expect(first.count == second.count)
    try await device.close()
  }

  @Test func `it reports again and again, and once more when it is cancelled`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await open(driver)
    let factory = TestMetrics()
    let often = Task { await NetworkDeviceMetrics(device, interval: .milliseconds(2), factory: factory).run() }
    for count in 1...3 {
      try await submit(1, to: device.queues[0])
      try await eventually("report \(count)") { total(factory, "packetsSubmitted") == Int64(count) }
    }
    often.cancel()
    await often.value

    let rare = TestMetrics()
    let metrics = NetworkDeviceMetrics(device, interval: .seconds(3600), factory: rare)
    let task = Task { await metrics.run() }
    try await eventually("the first report") { total(rare, "packetsSubmitted") == 3 }
    try await submit(4, to: device.queues[0])
    // From outside they are left for the loop, which need not have come to them before the device closes.
    try await eventually("they are published") { device.statistics[0].packetsSubmitted == 7 }
    try await device.close()
    #expect(total(rare, "packetsSubmitted") == 3)
    task.cancel()
    await task.value
    #expect(total(rare, "packetsSubmitted") == 7)
  }

  @Test func `an interval of nothing does not spin`() async throws {
    let device = try await open(ScriptedDriver(mode: .release))
    #expect(NetworkDeviceMetrics(device, interval: .zero, factory: TestMetrics()).interval == .milliseconds(1))
    #expect(NetworkDeviceMetrics(device, interval: .seconds(-5), factory: TestMetrics()).interval == .milliseconds(1))
    try await device.close()
  }

  @Test func `a queue whose loop is held up is reported all the same, and so are the others`() async throws {
    let driver = ScriptedDriver(mode: .release, queuePairs: 2)
    let device = try await open(driver, queues: 2)
    let factory = TestMetrics()
    try await submit(2, to: device.queues[0])
    try await eventually("they are released") { device.queues[0].statistics.packetsReleased == 2 }
    let hold = Holder()
    let scope = LoopScope(device.queues[0].loop)
    let held = Task { await scope.run { _ in hold.wait() } }
    try await eventually("the loop is held") { hold.isWaiting }
    let task = Task { await NetworkDeviceMetrics(device, interval: .milliseconds(2), factory: factory).run() }
    for count in 1...3 {
      try await submit(1, to: device.queues[1])
      try await eventually("report \(count)") { total(factory, "packetsSubmitted", queue: 1) == Int64(count) }
    }
    #expect(total(factory, "packetsSubmitted", queue: 0) == 2)
    hold.release()
    await held.value
    task.cancel()
    await task.value
    try await device.close()
  }

  @Test func `asking does not make an idle queue work`() async throws {
    let device = try await open(ScriptedDriver(mode: .release))
    let metrics = NetworkDeviceMetrics(device, factory: TestMetrics())
    metrics.report()
    try await idle(device)
    let before = device.queues[0].loop.statistics
    for _ in 0..<100 { metrics.report() }
    try await Task.sleep(for: .milliseconds(20))
    #expect(device.queues[0].loop.statistics == before)
    try await device.close()
  }

  @Test func `the reporter does not keep the device open`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let metrics = NetworkDeviceMetrics(try await open(driver), interval: .milliseconds(2), factory: TestMetrics())
    let task = Task { await metrics.run() }
    try await eventually("the device is closed") { driver.shutDownCount == 1 }
    task.cancel()
    await task.value
  }
}

/// Holds a thread until it is let go.
private final class Holder: Sendable {
  private let waiting = Atomic<Bool>(false)
  private let released = Atomic<Bool>(false)
  var isWaiting: Bool { waiting.load(ordering: .acquiring) }

  func wait() {
    waiting.store(true, ordering: .releasing)
    while !released.load(ordering: .acquiring) { usleep(1000) }
  }

  func release() { released.store(true, ordering: .releasing) }
}
#endif
