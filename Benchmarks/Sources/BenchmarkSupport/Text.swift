// Cells of a table; Foundation's formats are not worth linking it.

/// A number with as many decimals as `unit` has zeros.
public func rounded(_ value: Double, _ unit: Double = 10) -> String {
  let scaled = Int((value * unit).rounded())
  let fraction = String(scaled % Int(unit))
  let zeros = String(repeating: "0", count: String(Int(unit)).count - 1 - fraction.count)
  return "\(scaled / Int(unit)).\(zeros)\(fraction)"
}

/// Filled up with spaces at the end.
public func padded(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(0, width - text.count))
}

/// Filled up with spaces in front.
public func paddedLeft(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}
