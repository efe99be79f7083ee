internal import CNetdevSystem
internal import LibeventConcurrency

/// How long frames were with the device, from publication to release: counts by powers of two of a nanosecond.
///
/// A sample of all frames: at most one a turn of the queue's loop, so that keeping it costs nothing that could be seen.
public struct ResidencyHistogram: Sendable, Hashable, CustomStringConvertible {
  /// `counts[n]` frames took at least 2ⁿ and less than 2ⁿ⁺¹ nanoseconds; the last also those that took longer.
  public internal(set) var counts: [UInt64]

  /// Powers of two that are told apart: the last is that of some 39 hours.
  static var bucketCount: Int { 48 }

  init(_ count: (Int) -> UInt64 = { _ in 0 }) { counts = (0..<Self.bucketCount).map(count) }

  /// Where a time belongs.
  static func bucket(nanoseconds: UInt64) -> Int {
    min(UInt64.bitWidth - 1 - max(nanoseconds, 1).leadingZeroBitCount, bucketCount - 1)
  }

  /// The samples that came after `earlier`, which is a former reading of the same queue.
  public func since(_ earlier: ResidencyHistogram) -> ResidencyHistogram {
    ResidencyHistogram { bucket in counts[bucket] &- min(earlier.counts[bucket], counts[bucket]) }
  }

  /// Adds the samples of another queue.
  public static func += (sum: inout ResidencyHistogram, other: ResidencyHistogram) {
    for bucket in sum.counts.indices { sum.counts[bucket] &+= other.counts[bucket] }
  }

  /// Frames sampled.
  public var total: UInt64 { counts.reduce(0, &+) }

  /// A time that `fraction` (0 to 1, others are cut to that, and no number is none) of the sampled frames did not exceed,
  /// rounded up to a power of two; nil without samples.
  public func quantile(_ fraction: Double) -> Duration? {
    let total = total
    guard total > 0 else { return nil }
    // Not by `max`, which lets through what is not a number.
    let share = fraction > 0 ? min(fraction, 1) : 0
    let wanted = UInt64((Double(total) * share).rounded(.up))
    var sum: UInt64 = 0
    for (bucket, count) in counts.enumerated() {
      sum &+= count
      if sum >= max(wanted, 1) { return .nanoseconds(Int64(1) << (bucket + 1)) }
    }
    return nil
  }

  /// One line for a person.
  public var description: String {
    guard let median = quantile(0.5), let tail = quantile(0.99) else { return "no frames sampled" }
    return "\(total) frames sampled: half within \(median.inUnits), 99 of 100 within \(tail.inUnits)"
  }
}

/// Sampling: the frame that is being watched, and since when.
struct ResidencySampler {
  /// Who is waited for: the cookie of the watched frame, 0 when none is.
  var cookie: UInt32 = 0
  /// A turn has begun since the last sample.
  var isDue = true
  private var since: UInt64 = 0

  mutating func begin(_ cookie: UInt32, at time: UInt64) {
    self.cookie = cookie
    isDue = false
    since = time
  }

  /// The watched frame is released: where its time belongs in the histogram.
  mutating func end(at time: UInt64) -> Int {
    cookie = 0
    return ResidencyHistogram.bucket(nanoseconds: time &- since)
  }
}

extension QueueTurn {
  /// The first of some frames that are about to be published is watched: under the cookie of whoever waits for it, or
  /// under one of the sampler's own.
  @inline(never) func sample(_ first: UnsafeMutablePointer<FrameEntry>) {
    let entry = unsafe first.pointee
    let cookie = entry.cookie == 0 ? samplerCookie : entry.cookie
    unsafe first.pointee = entry.with(cookie: cookie)
    sampler.begin(cookie, at: netdev_monotonic_nanoseconds())
  }

  /// The watched frame is released.
  func endSample() { statistics.addResidency(bucket: sampler.end(at: netdev_monotonic_nanoseconds())) }
}
