internal import PacketFormats

// What the builders of frames share: a packet whose bytes are about to be written, and headers in front of one.

extension Packet {
  /// A packet of `count` bytes that the caller writes, all of them, before anybody else sees it.
  init(unwritten count: Int, in pool: PacketPool) {
    let record = unsafe pool.makeBuffer(count: count)
    self = unsafe Packet(owning: record)
  }

  /// A packet that `encode` fills; `length` is what it says that it writes.
  init(
    building length: Int, in pool: PacketPool,
    _ encode: (inout MutableRawSpan) throws(PacketFormatError) -> Int
  ) throws(PacketFormatError) {
    self.init(unwritten: length, in: pool)
    _ = try withMutableBytes(encode)
  }

  /// Puts `count` bytes in front of the frame, all of which `encode` then writes.
  mutating func prepend(
    _ count: Int, _ encode: (inout MutableRawSpan) throws(PacketFormatError) -> Int
  ) throws(PacketFormatError) {
    do { try prepend(unwritten: count) } catch {
      throw PacketFormatError(.payloadTooLong, .length(count + self.count, limit: 65_535))
    }
    // Nobody else refers to the buffer, and the frame lies in it in one piece.
    var bytes = unsafe MutableRawSpan(_unsafeStart: record.pointee.start, byteCount: self.count)
    _ = try encode(&bytes)
  }
}
