/// What a series of values comes to.
public struct Summary: Sendable {
  /// The value in the middle; of an even number the upper one.
  public let median: Double
  /// The lowest value.
  public let lowest: Double
  /// The highest value.
  public let highest: Double
  /// Where the median of what these values are drawn from lies, in 95 of 100 cases or more; with fewer than six, from the lowest to
  /// the highest.
  public let interval: ClosedRange<Double>

  /// - Parameter values: at least one.
  public init(_ values: [Double]) {
    let sorted = values.sorted()
    median = sorted[sorted.count / 2]
    lowest = sorted[0]
    highest = sorted[sorted.count - 1]
    let rank = Self.rank(sorted.count)
    interval = sorted[rank]...sorted[sorted.count - 1 - rank]
  }

  /// How many of so many sorted values can be left out at each end: each lies below the median with a chance of one half.
  private static func rank(_ count: Int) -> Int {
    var (below, ways) = (0.0, 1.0)
    for rank in 0..<count {
      // The chance that no more than `rank` lie below, or above: then the median is not in the interval that leaves out so many.
      below += ways / Double(sign: .plus, exponent: count, significand: 1)
      if 2 * below > 0.05 { return max(0, rank - 1) }
      ways *= Double(count - rank) / Double(rank + 1)
    }
    return 0
  }
}
