@testable import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Times of a program's own.
@Suite struct LatencyHistogramTests {
  @Test func `no quantile is off by more than a sixteenth`() throws {
    for nanoseconds in [0, 1, 15, 16, 17, 999, 1000, 123_456, 7_000_000_000, UInt64(Int64.max)] as [UInt64] {
      var histogram = LatencyHistogram()
      histogram.add(nanoseconds: nanoseconds)
      // Another, longer one: the longest bounds every quantile.
      histogram.add(nanoseconds: UInt64(Int64.max))
      let time = try #require(histogram.quantile(0.5))
      let exact = Duration.nanoseconds(Int64(clamping: nanoseconds))
      #expect(time >= exact)
      #expect(time <= exact + exact / 16 + .nanoseconds(1), "\(nanoseconds): \(time)")
    }
  }

  @Test func `quantiles, total and the longest are those of all times`() throws {
    var histogram = LatencyHistogram()
    #expect(histogram.quantile(0.5) == nil && histogram.description == "no samples" && histogram.bars().isEmpty)
    for time in 1...1000 { histogram.add(.microseconds(time)) }
    #expect(histogram.total == 1000 && histogram.longest == .milliseconds(1))
    for (fraction, exact) in [(0.5, 500), (0.9, 900), (0.99, 990)] {
      let time = try #require(histogram.quantile(fraction))
      #expect(time >= .microseconds(exact) && time <= .microseconds(exact + exact / 16 + 1), "\(fraction): \(time)")
    }
    #expect(histogram.quantile(1) == .milliseconds(1))
    #expect(histogram.quantile(.nan) == histogram.quantile(0) && histogram.quantile(7) == histogram.quantile(1))
    histogram.add(.seconds(-1))
    #expect(histogram.quantile(0) == .zero)
    var sum = histogram
    sum += histogram
    #expect(sum.total == 2002 && sum.longest == histogram.longest && sum.quantile(0.9) == histogram.quantile(0.9))
  }

  @Test func `it reads as a line, and as bars`() {
    var histogram = LatencyHistogram()
    for _ in 0..<99 { histogram.add(.microseconds(40)) }
    histogram.add(.milliseconds(3))
    #expect(histogram.description.hasPrefix("100 samples: median 4"), "\(histogram)")
    #expect(histogram.description.hasSuffix("most 3.0 ms"), "\(histogram)")
    let bars = histogram.bars(width: 10).split(separator: "\n")
    #expect(bars.count == 2 && bars[0].hasSuffix("##########") && bars[1].hasSuffix("\t#"), "\(bars)")
  }
}

/// Rates from two readings.
@Suite(.timeLimit(.minutes(1))) struct QueueRatesTests {
  @Test func `a line speaks of the same frames in packets and in bytes`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let before = queue.statistics
    for number in 0..<3 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
    try await eventually("they are with the device") { queue.inFlight == 3 }
    await driver.releaseFirst(1)
    try await eventually("one is back") { queue.inFlight == 2 }
    let line = "\(queue.statistics)"
    #expect(line.contains(", 3 out (192 bytes)"), "\(line)")
    var rates = queue.statistics.since(before)
    rates = QueueRates(interval: .seconds(1), change: rates.change)
    #expect("\(rates)".contains(", 3 packets/s out (1.5 kbit/s)"), "\(rates)")
    try await device.close()
  }

  @Test func `what a device has dropped reads as a line`() {
    var drops = DeviceDrops()
    #expect("\(drops)" == "none")
    drops.received = ["noReceiveBuffer": 5, "filtered": 2]
    #expect("\(drops)" == "7 for the program (filtered 2, noReceiveBuffer 5)")
    drops.transmitted = ["linkDown": 3]
    #expect("\(drops)" == "3 of the program (linkDown 3), 7 for the program (filtered 2, noReceiveBuffer 5)")
  }

  @Test func `rates are the difference of two readings over the time between them`() async throws {
    let driver = ScriptedDriver(mode: .loopback)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let before = device.totalStatistics
    #expect(before.since(before).perSecond(\.packetsReleased) == 0)
    for number in 0..<10 { try await queue.send(Packet(copying: numbered(number), in: queue.pool)) }
    let rates = device.totalStatistics.since(before)
    #expect(rates.change.packetsReleased == 10 && rates.change.bytesSubmitted == 640)
    #expect(rates.interval > .zero)
    let expected = 10 / (rates.interval / .seconds(1))
    #expect(abs(rates.perSecond(\.packetsReleased) - expected) < expected / 1000)
    #expect("\(rates)".contains(" packets/s out ("))
    #expect("\(device.totalStatistics)".contains("10 out (640 bytes)"))
    // The older of two readings has nothing that came later.
    #expect(before.since(device.totalStatistics).change.packetsReleased == 0)
    try await device.close()
  }

  @Test(arguments: [
    (0, "0 bit/s"), (999, "999 bit/s"), (1500, "1.5 kbit/s"), (41_600_000, "41.6 Mbit/s"), (10e9, "10 Gbit/s"),
  ])
  func `bits have a unit`(_ rate: Double, _ text: String) {
    #expect(QueueRates.bits(rate) == text)
  }
}
