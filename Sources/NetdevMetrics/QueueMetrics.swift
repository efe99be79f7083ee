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
    ("packetsReleased", { $0.packetsReleased }),
    ("packetsFailed", { $0.packetsFailed }),
    ("ringFull", { $0.ringFull }),
    ("starved", { $0.starved }),
    ("copiedToSend", { $0.copiedToSend }),
    ("quarantined", { $0.quarantined }),
    ("activeTurns", { $0.activeTurns }),
    ("kicks", { $0.driver.kicks }),
    ("kicksSuppressed", { $0.driver.kicksSuppressed }),
    ("interrupts", { $0.driver.interrupts }),
    ("receiveDrops", { $0.driver.receiveDrops }),
    ("recoveries", { $0.driver.recoveries }),
    ("resubmitted", { $0.driver.resubmitted }),
  ]
  /// The same of numbers that grow and shrink. The driver's quarantine ends when the device is known to be gone; that of the
  /// queue, which has the name, never does.
  static let levels: [(name: String, value: @Sendable (QueueStatistics) -> UInt64)] = [
    ("driver.quarantined", { $0.driver.quarantined })
  ]

  private let queue: NetworkQueue
  private let counters: [FollowingCounter]
  private let gauges: [Gauge]
  private let reported: Mutex<[UInt64]>

  init(_ queue: NetworkQueue, device: String, _ factory: any MetricsFactory) {
    self.queue = queue
    let dimensions = [("device", device), ("queue", String(queue.index))]
    counters = Self.numbers.map { FollowingCounter($0.name, dimensions, factory) }
    gauges = Self.levels.map { Gauge(label: "netdev.\($0.name)", dimensions: dimensions, factory: factory) }
    reported = Mutex([UInt64](repeating: 0, count: counters.count))
  }

  /// Asks the queue, adds what is new to the counters, and says where the gauges are.
  func report() async {
    let statistics = queue.statistics
    for index in gauges.indices { gauges[index].record(Int64(clamping: Self.levels[index].value(statistics))) }
    reported.withLock { reported in
      for index in counters.indices {
        let value = Self.numbers[index].value(statistics)
        counters[index].advance(from: reported[index], to: value)
        reported[index] = max(reported[index], value)
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
