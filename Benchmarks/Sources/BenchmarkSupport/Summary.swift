/// What a series of values comes to.
public struct Summary: Sendable {
  /// The value in the middle; of an even number the upper one.
  public let median: Double
  /// The lowest value.
  public let lowest: Double
  /// The highest value.
  public let highest: Double

  /// - Parameter values: at least one.
  public init(_ values: [Double]) {
    let sorted = values.sorted()
    median = sorted[sorted.count / 2]
    lowest = sorted[0]
    highest = sorted[sorted.count - 1]
  }
}
