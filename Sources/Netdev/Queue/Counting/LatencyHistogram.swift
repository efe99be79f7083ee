internal import LibeventConcurrency

/// Times of a program's own, such as round trips, by how long they took: sixteen parts for each power of two of a nanosecond, so
/// that no quantile is off by more than a sixteenth.
///
/// ```swift
/// var trips = LatencyHistogram()
/// trips.add(sent.duration(to: queue.clock.now))
/// print(trips)   // 10000 samples: median 41.0 µs, 90 % 52.2 µs, 99 % 98.3 µs, 99.9 % 209 µs, most 412 µs
/// ```
///
/// Adding is a few instructions, without allocation. Of several tasks each fills its own, and they are added up in the end.
public struct LatencyHistogram: Sendable, Hashable, CustomStringConvertible {
  private static let parts = 16
  private static let bucketCount = 61 * parts

  private var counts = [UInt64](repeating: 0, count: Self.bucketCount)
  /// Times added.
  public private(set) var total: UInt64 = 0
  /// The longest of them; zero without any.
  public private(set) var longest = Duration.zero

  /// Without a time.
  public init() {}

  /// Adds a time; a negative one counts as none at all.
  public mutating func add(_ time: Duration) { add(nanoseconds: time.nanosecondsRoundedDown) }

  /// Adds a time in nanoseconds.
  public mutating func add(nanoseconds: UInt64) {
    counts[Self.bucket(nanoseconds)] &+= 1
    total &+= 1
    let time = Duration.nanoseconds(Int64(clamping: nanoseconds))
    if time > longest { longest = time }
  }

  /// Adds all of another's times.
  public static func += (left: inout LatencyHistogram, right: LatencyHistogram) {
    for bucket in left.counts.indices { left.counts[bucket] &+= right.counts[bucket] }
    left.total &+= right.total
    left.longest = max(left.longest, right.longest)
  }

  /// A time that `fraction` of the times (0 to 1, others are cut to that, and no number is none) did not exceed, rounded up by a
  /// sixteenth at most; nil without times.
  public func quantile(_ fraction: Double) -> Duration? {
    guard total > 0 else { return nil }
    // Not by `max`, which lets through what is not a number.
    let share = fraction > 0 ? min(fraction, 1) : 0
    let wanted = max(1, UInt64((Double(total) * share).rounded(.up)))
    var sum: UInt64 = 0
    for (bucket, count) in counts.enumerated() {
      sum &+= count
      if sum >= wanted { return min(.nanoseconds(Int64(clamping: Self.end(bucket))), longest) }
    }
    return longest
  }

  /// One line: how many, the median, the tail and the longest.
  public var description: String {
    guard total > 0 else { return "no samples" }
    let quantiles = [("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("99.9 %", 0.999)].map { name, fraction in
      "\(name) \((quantile(fraction) ?? .zero).inUnits)"
    }
    return "\(total) samples: \(quantiles.joined(separator: ", ")), most \(longest.inUnits)"
  }

  /// A bar for each power of two that has times, the longest of so many characters.
  public func bars(width: Int = 50) -> String {
    let sums = stride(from: 0, to: counts.count, by: Self.parts).map { first in
      (end: Self.end(first + Self.parts - 1), count: counts[first..<(first + Self.parts)].reduce(0, &+))
    }
    let most = max(1, sums.map { $0.count }.max() ?? 1)
    return sums.filter { $0.count > 0 }.map { sum in
      let length = max(1, Int(Double(sum.count) / Double(most) * Double(max(1, width))))
      let bar = String(repeating: "#", count: length)
      return "up to \(Duration.nanoseconds(Int64(clamping: sum.end)).inUnits)\t\(sum.count)\t\(bar)\n"
    }.joined()
  }

  // Times below 16 ns have a bucket each; above, the four bits behind the first one say which part of its power of two it is.
  private static func bucket(_ nanoseconds: UInt64) -> Int {
    guard nanoseconds >= UInt64(parts) else { return Int(nanoseconds) }
    let power = UInt64.bitWidth - 1 - nanoseconds.leadingZeroBitCount
    return (power - 3) * parts + Int(nanoseconds >> UInt64(power - 4)) & (parts - 1)
  }

  /// The greatest time of a bucket.
  private static func end(_ bucket: Int) -> UInt64 {
    guard bucket >= parts else { return UInt64(bucket) }
    let shift = UInt64(bucket / parts - 1)
    return (UInt64(parts + bucket % parts) << shift) | ((1 << shift) - 1)
  }
}
