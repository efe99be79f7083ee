/// Reads the fields of a payload whose size was checked, in native byte order and one after the other.
struct PayloadReader {
  private let bytes: [UInt8]
  private var offset = 0

  /// - Throws: when there are not exactly `size` bytes.
  init(_ bytes: [UInt8], size: Int) throws(ProtocolError) {
    guard bytes.count == size else { throw ProtocolError("\(bytes.count) bytes where \(size) belong") }
    self.bytes = bytes
  }

  /// The next field; zeros beyond the end, which the callers' sizes exclude.
  mutating func next<Field: FixedWidthInteger>() -> Field {
    var value: Field = 0
    unsafe withUnsafeMutableBytes(of: &value) { target in
      for position in target.indices where offset + position < bytes.count {
        unsafe target[position] = bytes[offset + position]
      }
    }
    offset += MemoryLayout<Field>.size
    return value
  }

  /// What has not been read.
  var rest: [UInt8] { Array(bytes.dropFirst(offset)) }
}

/// Writes fields in native byte order.
package struct PayloadWriter {
  package private(set) var bytes: [UInt8] = []

  package init() {}

  package mutating func append<Field: FixedWidthInteger>(_ value: Field) {
    unsafe withUnsafeBytes(of: value) { source in unsafe bytes.append(contentsOf: source) }
  }
}
