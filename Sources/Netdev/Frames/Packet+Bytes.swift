public import PacketFormats

// Fields of a frame: integers in network byte order, under the convention of `RawSpan` in PacketFormats. What is not wholly
// inside the frame throws `PacketFormatError` with the reason `truncated`; nothing traps.

extension Packet {
  /// The byte at `offset`; nil outside the frame. A look at many bytes is cheaper by `withBytes`.
  public subscript(offset: Int) -> UInt8? {
    guard offset >= 0, offset < count else { return nil }
    if segmentCount == 1 { return withBytes { try? $0.loadUInt8(at: offset) } }
    var byte: UInt8?
    var position = 0
    withSegments { segment in
      byte = byte ?? (try? segment.loadUInt8(at: offset - position))
      position += segment.byteCount
    }
    return byte
  }

  /// The number in one byte, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable
  public borrowing func loadUInt8(at offset: Int) throws(PacketFormatError) -> UInt8 {
    try withBytes { (bytes) throws(PacketFormatError) in try bytes.loadUInt8(at: offset) }
  }

  /// The number in 2 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable
  public borrowing func loadUInt16(at offset: Int) throws(PacketFormatError) -> UInt16 {
    try withBytes { (bytes) throws(PacketFormatError) in try bytes.loadUInt16(at: offset) }
  }

  /// The number in 4 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable
  public borrowing func loadUInt32(at offset: Int) throws(PacketFormatError) -> UInt32 {
    try withBytes { (bytes) throws(PacketFormatError) in try bytes.loadUInt32(at: offset) }
  }

  /// The number in 8 bytes, the first the most significant, from `offset` on.
  ///
  /// - Throws: `truncated` unless all of it is inside.
  @inlinable
  public borrowing func loadUInt64(at offset: Int) throws(PacketFormatError) -> UInt64 {
    try withBytes { (bytes) throws(PacketFormatError) in try bytes.loadUInt64(at: offset) }
  }

  /// Writes a number to the byte at `offset`: in place, or in a copy if somebody else holds the frame.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written, and nothing copied.
  @inlinable
  public mutating func storeUInt8(_ value: UInt8, at offset: Int) throws(PacketFormatError) {
    try requireRoom(1, at: offset)
    try withMutableBytes { (bytes) throws(PacketFormatError) in try bytes.storeUInt8(value, at: offset) }
  }

  /// Writes a number to 2 bytes, the most significant first, from `offset` on: in place, or in a copy if somebody else holds the frame.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written, and nothing copied.
  @inlinable
  public mutating func storeUInt16(_ value: UInt16, at offset: Int) throws(PacketFormatError) {
    try requireRoom(2, at: offset)
    try withMutableBytes { (bytes) throws(PacketFormatError) in try bytes.storeUInt16(value, at: offset) }
  }

  /// Writes a number to 4 bytes, the most significant first, from `offset` on: in place, or in a copy if somebody else holds the frame.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written, and nothing copied.
  @inlinable
  public mutating func storeUInt32(_ value: UInt32, at offset: Int) throws(PacketFormatError) {
    try requireRoom(4, at: offset)
    try withMutableBytes { (bytes) throws(PacketFormatError) in try bytes.storeUInt32(value, at: offset) }
  }

  /// Writes a number to 8 bytes, the most significant first, from `offset` on: in place, or in a copy if somebody else holds the frame.
  ///
  /// - Throws: `truncated` unless all of it is inside; then nothing is written, and nothing copied.
  @inlinable
  public mutating func storeUInt64(_ value: UInt64, at offset: Int) throws(PacketFormatError) {
    try requireRoom(8, at: offset)
    try withMutableBytes { (bytes) throws(PacketFormatError) in try bytes.storeUInt64(value, at: offset) }
  }

  /// A store that cannot be done copies nothing.
  @inlinable func requireRoom(_ size: Int, at offset: Int) throws(PacketFormatError) {
    guard offset >= 0, offset <= count - size else {
      let (end, overflow) = offset.addingReportingOverflow(size)
      throw PacketFormatError(.truncated, .length(overflow ? .max : end, limit: count))
    }
  }
}

extension [UInt8] {
  /// A copy of the frame's bytes, whatever buffers they lie in.
  public init(_ packet: borrowing Packet) {
    self.init()
    reserveCapacity(packet.count)
    packet.withSegments { segment in append(contentsOf: segment.copied()) }
  }
}
