// Fields of packets for programs: integers in network byte order, at an offset that may be wrong.
//
// One convention for all of them, here and on `Packet`: a load or a store that is not wholly inside throws
// `PacketFormatError` with the reason `truncated`, which says where the field would have ended and how many bytes there are; a
// store then changes nothing. Nothing traps, whatever the offset is. `try?` makes an optional of it.

extension RawSpan {
  /// The number in one byte, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt8(at offset: Int) throws(PacketFormatError) -> UInt8 {
    guard holds(1, at: offset) else { throw .truncated(1, at: offset, of: byteCount) }
    return loadUInt8(inside: offset)
  }

  /// The number in 2 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt16(at offset: Int) throws(PacketFormatError) -> UInt16 {
    guard holds(2, at: offset) else { throw .truncated(2, at: offset, of: byteCount) }
    return loadUInt16(inside: offset)
  }

  /// The number in 4 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt32(at offset: Int) throws(PacketFormatError) -> UInt32 {
    guard holds(4, at: offset) else { throw .truncated(4, at: offset, of: byteCount) }
    return loadUInt32(inside: offset)
  }

  /// The number in 8 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt64(at offset: Int) throws(PacketFormatError) -> UInt64 {
    guard holds(8, at: offset) else { throw .truncated(8, at: offset, of: byteCount) }
    return loadUInt64(inside: offset)
  }

  /// A copy of the bytes.
  public func copied() -> [UInt8] {
    // The closure only reads what the span lends it.
    unsafe withUnsafeBytes { unsafe Array($0) }
  }
}

extension MutableRawSpan {
  /// The number in one byte, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt8(at offset: Int) throws(PacketFormatError) -> UInt8 {
    try bytes.loadUInt8(at: offset)
  }

  /// The number in 2 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt16(at offset: Int) throws(PacketFormatError) -> UInt16 {
    try bytes.loadUInt16(at: offset)
  }

  /// The number in 4 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt32(at offset: Int) throws(PacketFormatError) -> UInt32 {
    try bytes.loadUInt32(at: offset)
  }

  /// The number in 8 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable @inline(__always)
  public func loadUInt64(at offset: Int) throws(PacketFormatError) -> UInt64 {
    try bytes.loadUInt64(at: offset)
  }

  /// Writes a number to the byte at `offset`.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written.
  @inlinable @inline(__always)
  public mutating func storeUInt8(_ value: UInt8, at offset: Int) throws(PacketFormatError) {
    guard holds(1, at: offset) else { throw .truncated(1, at: offset, of: byteCount) }
    storeUInt8(value, inside: offset)
  }

  /// Writes a number to 2 bytes, the most significant first, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written.
  @inlinable @inline(__always)
  public mutating func storeUInt16(_ value: UInt16, at offset: Int) throws(PacketFormatError) {
    guard holds(2, at: offset) else { throw .truncated(2, at: offset, of: byteCount) }
    storeUInt16(value, inside: offset)
  }

  /// Writes a number to 4 bytes, the most significant first, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written.
  @inlinable @inline(__always)
  public mutating func storeUInt32(_ value: UInt32, at offset: Int) throws(PacketFormatError) {
    guard holds(4, at: offset) else { throw .truncated(4, at: offset, of: byteCount) }
    storeUInt32(value, inside: offset)
  }

  /// Writes a number to 8 bytes, the most significant first, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written.
  @inlinable @inline(__always)
  public mutating func storeUInt64(_ value: UInt64, at offset: Int) throws(PacketFormatError) {
    guard holds(8, at: offset) else { throw .truncated(8, at: offset, of: byteCount) }
    storeUInt64(value, inside: offset)
  }

  /// Writes all of `source` from `offset` on; the bytes must be others than these.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written.
  @inlinable
  public mutating func store(_ source: RawSpan, at offset: Int) throws(PacketFormatError) {
    guard holds(source.byteCount, at: offset) else {
      throw .truncated(source.byteCount, at: offset, of: byteCount)
    }
    store(source, inside: offset)
  }
}
