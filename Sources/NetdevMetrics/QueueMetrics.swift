#if Metrics
import CoreMetrics
import Netdev
import Synchronization

/// What one queue pair counts, as metrics.
final class QueueMetrics: Sendable {
  /// The name of each number, and where it is. A test holds this list against what there is to count.
  static let numbers: [(name: String, value: @Sendable (QueueStatistics) -> UInt64)] = [
    ("packetsReceived", { $0.packetsReceived }),
    ("bytesReceived", { $0.bytesReceived }),
    ("packetsSubmitted", { $0.packetsSubmitted }),
    ("packetsMoved", { $0.packetsMoved }),
    ("packetsReleased", { $0.packetsReleased }),
    ("bytesSubmitted", { $0.bytesSubmitted }),
    ("packetsFailed", { $0.packetsFailed }),
    ("droppedAtEnd", { $0.droppedAtEnd }),
    ("packetsRefused", { $0.packetsRefused }),
    ("ringFull", { $0.ringFull }),
    ("poolEmpty", { $0.poolEmpty }),
    ("submittedOutside", { $0.submittedOutside }),
    ("outsideWakeups", { $0.outsideWakeups }),
    ("starved", { $0.starved }),
    ("copiedToSend", { $0.copiedToSend }),
    ("copiedToChange", { $0.copiedToChange }),
    ("quarantined", { $0.quarantined }),
    ("interruptsSuppressed", { $0.interruptsSuppressed }),
    ("loopStalls", { $0.loopStalls }),
    ("activeTurns", { $0.activeTurns }),
    ("kicks", { $0.driver.kicks }),
    ("kicksSuppressed", { $0.driver.kicksSuppressed }),
    ("interrupts", { $0.driver.interrupts }),
    ("receiveDropsChecksum", { $0.driver.receiveDropsChecksum }),
    ("receiveDropsSegmentation", { $0.driver.receiveDropsSegmentation }),
    ("receiveDropsLength", { $0.driver.receiveDropsLength }),
    ("receiveRingEmpty", { $0.driver.receiveRingEmpty }),
    ("recoveries", { $0.driver.recoveries }),
    ("resubmitted", { $0.driver.resubmitted }),
  ]
  /// The same of numbers that grow and shrink. The driver's quarantine ends when the device is known to be gone; that of the
  /// queue, which has the name, never does.
  static let levels: [(name: String, value: @Sendable (QueueStatistics) -> UInt64)] = [
    ("driver.quarantined", { $0.driver.quarantined }),
    ("sendersWaiting", { $0.sendersWaiting }),
  ]

  private let queue: NetworkQueue
  private let counters: [FollowingCounter]
  private let gauges: [Gauge]
  private let residency: ResidencyMetrics
  private let reported: Mutex<[UInt64]>

  init(_ queue: NetworkQueue, device: String, _ factory: any MetricsFactory) {
    self.queue = queue
    let dimensions = [("device", device), ("queue", String(queue.index))]
    counters = Self.numbers.map { FollowingCounter($0.name, dimensions, factory) }
    gauges = Self.levels.map { Gauge(label: "netdev.\($0.name)", dimensions: dimensions, factory: factory) }
    residency = ResidencyMetrics(dimensions, factory)
    reported = Mutex([UInt64](repeating: 0, count: counters.count))
  }

  /// Reads the queue's numbers, adds what is new to the counters, and says where the gauges are.
  func report() {
    let statistics = queue.statistics
    for index in gauges.indices { gauges[index].record(Int64(clamping: Self.levels[index].value(statistics))) }
    residency.report(statistics.residency)
    reported.withLock { reported in
      for index in counters.indices {
        let value = Self.numbers[index].value(statistics)
        counters[index].advance(from: reported[index], to: value)
        reported[index] = max(reported[index], value)
      }
    }
  }
}

/// How long frames were with the device since the last report: gauges in nanoseconds, and a counter of the frames sampled.
final class ResidencyMetrics: Sendable {
  /// The quantiles reported, and how a metric's dimension says them.
  static let quantiles: [(name: String, fraction: Double)] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("1", 1)]

  private let gauges: [Gauge]
  private let samples: FollowingCounter
  private let reported = Mutex<ResidencyHistogram?>(nil)

  init(_ dimensions: [(String, String)], _ factory: any MetricsFactory) {
    gauges = Self.quantiles.map { quantile in
      Gauge(label: "netdev.residency", dimensions: dimensions + [("quantile", quantile.name)], factory: factory)
    }
    samples = FollowingCounter("residencySamples", dimensions, factory)
  }

  func report(_ histogram: ResidencyHistogram) {
    reported.withLock { reported in
      let fresh = reported.map { histogram.since($0) } ?? histogram
      // Without a frame there is nothing to say: the gauges stay where they are.
      guard fresh.total > 0 else { return }
      samples.advance(from: histogram.total - fresh.total, to: histogram.total)
      reported = histogram
      for (gauge, quantile) in zip(gauges, Self.quantiles) {
        guard let time = fresh.quantile(quantile.fraction) else { continue }
        gauge.record(Int64(time / .nanoseconds(1)))
      }
    }
  }
}

/// What the device's pool has, and how often it had to copy.
final class PoolMetrics: Sendable {
  private let pool: PacketPool
  private let available: Gauge
  private let copies: FollowingCounter
  private let linearCopies: FollowingCounter
  private let reported = Mutex<(copies: UInt64, linearCopies: UInt64)>((0, 0))

  init(_ pool: PacketPool, device: String, _ factory: any MetricsFactory) {
    self.pool = pool
    let dimensions = [("device", device)]
    available = Gauge(label: "netdev.available", dimensions: dimensions, factory: factory)
    copies = FollowingCounter("copies", dimensions, factory)
    linearCopies = FollowingCounter("linearCopies", dimensions, factory)
  }

  func report() {
    available.record(pool.available)
    reported.withLock { reported in
      let now = (copies: UInt64(clamping: pool.copies), linearCopies: UInt64(clamping: pool.linearCopies))
      copies.advance(from: reported.copies, to: now.copies)
      linearCopies.advance(from: reported.linearCopies, to: now.linearCopies)
      reported = now
    }
  }
}
#endif
