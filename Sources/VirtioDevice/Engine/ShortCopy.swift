extension UnsafeMutableRawPointer {
  /// Copies `byteCount` bytes, which may overlap. The shortest frames of Ethernet, which are the most frequent, go in four
  /// moves in place: a call costs as much as their copy.
  @inline(__always)
  func copyFrame(from source: UnsafeRawPointer, byteCount: Int) {
    typealias Part = SIMD2<UInt64>
    guard byteCount >= 32, byteCount <= 64 else { return unsafe copyMemory(from: source, byteCount: byteCount) }
    // Two parts from the front and two up to the end, which may overlap; all are read before one is written.
    let end = byteCount &- 32
    let first = unsafe source.loadUnaligned(as: Part.self)
    let second = unsafe source.loadUnaligned(fromByteOffset: 16, as: Part.self)
    let third = unsafe source.loadUnaligned(fromByteOffset: end, as: Part.self)
    let fourth = unsafe source.loadUnaligned(fromByteOffset: end &+ 16, as: Part.self)
    unsafe storeBytes(of: first, as: Part.self)
    unsafe storeBytes(of: second, toByteOffset: 16, as: Part.self)
    unsafe storeBytes(of: third, toByteOffset: end, as: Part.self)
    unsafe storeBytes(of: fourth, toByteOffset: end &+ 16, as: Part.self)
  }
}
