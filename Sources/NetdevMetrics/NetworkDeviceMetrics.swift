#if Metrics
public import CoreMetrics
internal import LibeventConcurrency
public import Netdev
internal import Synchronization

/// Reports what a device counts to swift-metrics.
///
/// ```swift
/// let metrics = NetworkDeviceMetrics(device)
/// try await withThrowingTaskGroup(of: Void.self) { group in
///   group.addTask { await metrics.run() }
///   try await device.run { queue in … }
///   group.cancelAll()
/// }
/// ```
///
/// Every counter of `QueueStatistics` and `QueueDriverStatistics` is a counter `netdev.` + its name, such as
/// `netdev.packetsReceived`, with the dimensions `device`, the device's name, and `queue`, the pair's position. What a driver
/// has in quarantine comes and goes: it is the gauge `netdev.driver.quarantined`. How long frames were with the device since
/// the last report is the gauge `netdev.residency`, in nanoseconds, rounded up to a power of two, with the further dimension
/// `quantile` (0.5, 0.9, 0.99, 1); `netdev.residencySamples` counts the frames behind it. The device's pool is the gauge
/// `netdev.available` and the counters `netdev.copies` and `netdev.linearCopies`, with `device` alone.
///
/// It costs a queue nothing: it counts anyway, and does not notice when its numbers are read. A queue whose loop is held up
/// is reported like any other.
///
/// The reporter does not keep the device open. The module needs the trait `Metrics`.
public final class NetworkDeviceMetrics: Sendable {
  /// How often `run` reports.
  public let interval: Duration
  private let queues: [QueueMetrics]
  private let pool: PoolMetrics

  /// Metrics for a device; nothing is reported yet.
  ///
  /// - Parameters:
  ///   - device: The device. Counters start with what it has counted since it was opened.
  ///   - interval: How often to report, a millisecond at least.
  ///   - factory: Where the metrics are made: by default in the system that the program has set up.
  public init(
    _ device: NetworkDevice, interval: Duration = .seconds(10), factory: any MetricsFactory = MetricsSystem.factory
  ) {
    self.interval = max(interval.bounded, .milliseconds(1))
    let name = device.information.name
    queues = device.queues.map { QueueMetrics($0, device: name, factory) }
    pool = PoolMetrics(device.pool, device: name, factory)
  }

  /// Reports now and once an interval, until the task is cancelled; then once more, so that nothing counted is lost. It has no
  /// other end, and cancellation ends it at once.
  public func run() async {
    while true {
      // Asked before: a report that a cancellation overtakes is not the last one.
      let isLast = Task.isCancelled
      report()
      if isLast { return }
      // Cut short by a cancellation: the report above follows it.
      try? await Task.sleep(for: interval)
    }
  }

  /// Reports once, now. From any thread; reports of several at once add nothing twice.
  public func report() {
    for queue in queues { queue.report() }
    pool.report()
  }
}

/// A counter of swift-metrics that follows a number which only grows.
struct FollowingCounter: Sendable {
  private let counter: Counter

  init(_ name: String, _ dimensions: [(String, String)], _ factory: any MetricsFactory) {
    counter = Counter(label: "netdev.\(name)", dimensions: dimensions, factory: factory)
  }

  func advance(from old: UInt64, to new: UInt64) {
    // Reports of two tasks can overtake one another: the older of two numbers says nothing.
    guard new > old else { return }
    counter.increment(by: Int64(clamping: new - old))
  }
}
#endif
