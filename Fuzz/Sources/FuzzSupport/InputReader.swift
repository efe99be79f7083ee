/// A fuzzer's input as a script: fields are taken from its front, and beyond its end there are zeros.
public struct InputReader {
  private let bytes: UnsafeBufferPointer<UInt8>
  private var offset = 0

  /// Reads the `count` bytes at `start`, which stay where they are.
  public init(_ start: UnsafePointer<UInt8>?, _ count: Int) {
    bytes = UnsafeBufferPointer(start: start, count: start == nil ? 0 : count)
  }

  /// Bytes that have not been taken.
  public var remaining: Int { bytes.count - offset }
  /// Everything has been taken.
  public var isAtEnd: Bool { offset >= bytes.count }

  /// The next byte.
  public mutating func byte() -> UInt8 {
    guard offset < bytes.count else { return 0 }
    defer { offset += 1 }
    return bytes[offset]
  }

  /// The next byte, as a choice of `count` things.
  public mutating func choice(_ count: Int) -> Int { Int(byte()) % count }

  /// The next number, the low byte first.
  public mutating func number<Number: FixedWidthInteger & UnsignedInteger>(_ type: Number.Type = Number.self) -> Number
  {
    var value: Number = 0
    for position in 0..<MemoryLayout<Number>.size { value |= Number(byte()) << (8 * position) }
    return value
  }

  /// The next `count` bytes, fewer at the end.
  public mutating func take(_ count: Int) -> [UInt8] {
    let end = min(offset + max(count, 0), bytes.count)
    defer { offset = end }
    return Array(bytes[offset..<end])
  }

  /// Everything that is left.
  public mutating func rest() -> [UInt8] { take(remaining) }
}
