import Virtio

/// A configuration space that keeps an account of how it is read, and that changes under its reader on demand.
final class MockConfig: DeviceConfigReader {
  var bytes: [UInt8]
  /// Called before each access, with the number of accesses so far: the place to change `bytes` and `generation`.
  var beforeAccess: ((MockConfig, Int) -> Void)?
  var generationNow: UInt8 = 0
  private(set) var accesses: [(offset: Int, width: Int)] = []
  /// Accesses that a device would not have to answer: not aligned, beyond the end, or not of the field's width.
  private(set) var faults: [String] = []

  /// Offsets of the network configuration's fields and their widths (VIRTIO 1.4 §5.1.4).
  private static let fields: [Int: Int] = [
    0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 8: 2, 10: 2, 12: 4, 16: 1, 17: 1, 18: 2, 20: 4, 24: 4, 28: 4,
  ]

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var length: Int { bytes.count }
  var generation: UInt32 { UInt32(generationNow) }

  func read8(at offset: Int) -> UInt8 { UInt8(read(offset, 1)) }
  func read16(at offset: Int) -> UInt16 { UInt16(read(offset, 2)) }
  func read32(at offset: Int) -> UInt32 { UInt32(read(offset, 4)) }

  private func read(_ offset: Int, _ width: Int) -> Int {
    beforeAccess?(self, accesses.count)
    accesses.append((offset, width))
    guard Self.fields[offset] == width, offset + width <= bytes.count else {
      faults.append("\(width) bytes at \(offset)")
      return 0
    }
    return (0..<width).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
  }
}
