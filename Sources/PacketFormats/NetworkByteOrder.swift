// Loads and stores of big-endian integers, and the one question asked before any of them.
//
// The unsafe expressions of the module are here. The standard library calls a load from a `RawSpan` unsafe
// because it cannot know whether the bytes make a valid value of an arbitrary type. For integers every bit pattern is valid,
// and the span checks the bounds itself, so the functions below are safe for every argument. Out of bounds they stop the
// program like any other span access; that is the net below the tightrope: decoders ask `holds` first, and never fall.
// `inside` is their promise that they have asked. Programs use `ByteAccess.swift`, which asks by itself.
// One load has no such net, for the inner loop of the checksum; its name says so and its caller gives the reason.

extension RawSpan {
  /// Whether `count` bytes exist from `offset` on. Right for every argument, negative and overflowing ones too.
  @inlinable @inline(__always)
  package func holds(_ count: Int, at offset: Int) -> Bool {
    offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount &- offset
  }

  @inlinable @inline(__always)
  package func loadUInt8(inside offset: Int) -> UInt8 {
    // Bounds are checked by the callee, and every bit pattern is a UInt8.
    unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
  }

  @inlinable @inline(__always)
  package func loadUInt16(inside offset: Int) -> UInt16 {
    // Bounds are checked by the callee, and every bit pattern is a UInt16.
    unsafe UInt16(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inlinable @inline(__always)
  package func loadUInt32(inside offset: Int) -> UInt32 {
    // Bounds are checked by the callee, and every bit pattern is a UInt32.
    unsafe UInt32(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  @inlinable @inline(__always)
  package func loadUInt64(inside offset: Int) -> UInt64 {
    // Bounds are checked by the callee, and every bit pattern is a UInt64.
    unsafe UInt64(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// Eight bytes in the order of this machine: for sums, which do not care about the order (RFC 1071 §2 (B)).
  @inlinable @inline(__always)
  package func loadNativeUInt64(inside offset: Int) -> UInt64 {
    // Bounds are checked by the callee, and every bit pattern is a UInt64.
    unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
  }

  /// The same without a check: eight bytes must exist from `offset` on.
  @inlinable @inline(__always)
  @unsafe package func loadNativeUInt64(atUnchecked offset: Int) -> UInt64 {
    unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self)
  }
}

extension MutableRawSpan {
  /// Whether `count` bytes exist from `offset` on. Right for every argument, negative and overflowing ones too.
  @inlinable @inline(__always)
  package func holds(_ count: Int, at offset: Int) -> Bool {
    offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount &- offset
  }

  @inlinable @inline(__always)
  package mutating func storeUInt8(_ value: UInt8, inside offset: Int) {
    storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }

  @inlinable @inline(__always)
  package mutating func storeUInt16(_ value: UInt16, inside offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }

  @inlinable @inline(__always)
  package mutating func storeUInt32(_ value: UInt32, inside offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  @inlinable @inline(__always)
  package mutating func storeUInt64(_ value: UInt64, inside offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
  }

  /// Copies all of `source`, for which there is room from `offset` on; out of bounds it stops the program.
  @inlinable @inline(__always)
  package mutating func store(_ source: RawSpan, inside offset: Int) {
    var rest = _mutatingExtracting(offset..<(offset &+ source.byteCount))
    // Exclusive access to the destination says that the two do not overlap; its length is that of the source.
    unsafe rest.withUnsafeMutableBytes { destination in
      unsafe source.withUnsafeBytes { unsafe destination.copyMemory(from: $0) }
    }
  }

  /// Moves `count` bytes towards the front, from `source` to `destination`; they may overlap. Does nothing unless
  /// `destination <= source` and both ranges lie inside. For the rare frame that carries IPv4 options: byte by byte.
  @inlinable
  package mutating func moveForward(from source: Int, to destination: Int, count: Int) {
    guard destination < source, holds(count, at: source), holds(count, at: destination) else { return }
    for index in 0..<count {
      storeUInt8(bytes.loadUInt8(inside: source &+ index), inside: destination &+ index)
    }
  }
}
