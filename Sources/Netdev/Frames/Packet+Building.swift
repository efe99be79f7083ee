internal import PacketFormats

// What the builders of frames share: a packet whose bytes are about to be written, and headers in front of one.

extension Packet {
  /// A packet of `length` bytes that `encode` fills, all of them: they hold bytes of other frames before.
  @inline(__always)
  init(
    building length: Int, in pool: PacketPool,
    _ encode: (inout MutableRawSpan) throws(PacketFormatError) -> Int
  ) throws(PacketFormatError) {
    let record = unsafe pool.makeBuffer(count: length)
    // From here on the buffer goes with the packet, also when `encode` throws; nobody else refers to it.
    self = unsafe Packet(owning: record)
    var bytes = unsafe MutableRawSpan(_unsafeStart: record.pointee.start, byteCount: length)
    _ = try encode(&bytes)
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
