internal import CNetdevSystem
internal import PacketFormats

/// Frames of a program's own in as many buffers as they take: the first has the pool's headroom before it, the others are
/// used from their first byte.
extension PacketPool {
  /// Bytes of a frame that its first buffer holds.
  var firstBufferRoom: Int { configuration.slotSize - configuration.headroom }

  /// Buffers that a frame of `count` bytes takes.
  func buffersNeeded(for count: Int) -> Int {
    let rest = count - firstBufferRoom
    return rest <= 0 ? 1 : 1 + (rest + configuration.slotSize - 1) / configuration.slotSize
  }

  /// Buffers that programs can have at all: all but the reserve.
  var buffersForPrograms: Int { configuration.slots - configuration.reserve }

  /// From any thread: buffers for a frame of `count` bytes of the program's own, linked; nil when there are not enough of
  /// them beyond the reserve, and beyond what is claimed: by all senders that wait, or, for one of them, by those before it.
  func takeChain(for count: Int, claimed: Int? = nil) -> UnsafeMutablePointer<SlotRecord>? {
    var chain = ChainUnderConstruction()
    let isThere = popShared(exactly: buffersNeeded(for: count), claimed: claimed ?? queues.claimed) { slot in
      let record = unsafe records.advanced(by: Int(slot))
      unsafe record.pointee.unpoison()
      unsafe chain.append(record, in: self, of: count)
    }
    guard isThere else { return nil }
    return unsafe chain.first
  }

  /// From any thread: room for a frame of the program's own, in as many buffers as it takes, or, when there are not enough, on the
  /// heap.
  @usableFromInline func makeFrame(count: Int) throws(NetworkDeviceError) -> UnsafeMutablePointer<SlotRecord> {
    if let record = unsafe makeAtHand(count: count) { return unsafe record }
    if count > firstBufferRoom {
      try Packet.checkLength(count)
      if let first = unsafe takeChain(for: count) { return unsafe first }
    }
    return unsafe makeBuffer(count: count)
  }

  /// From any thread: a copy, in buffers of this pool, of a packet that lies elsewhere; nil when there are not enough.
  func adopt(_ packet: borrowing Packet) -> Packet? {
    guard let first = unsafe takeChain(for: packet.count) else { return nil }
    return unsafe adopt(packet, into: first)
  }

  /// The copy, in buffers taken for it.
  func adopt(_ packet: borrowing Packet, into first: UnsafeMutablePointer<SlotRecord>) -> Packet {
    packet.withSegmentsAndOffsets { bytes, offset in
      unsafe bytes.withUnsafeBytes { unsafe SlotRecord.write($0, at: offset, to: first) }
    }
    return unsafe Packet(owning: first)
  }
}

/// A frame's buffers as they are put together.
@safe struct ChainUnderConstruction {
  private(set) var first: UnsafeMutablePointer<SlotRecord>?
  private var last: UnsafeMutablePointer<SlotRecord>?
  private var length = 0

  init() {}

  /// The caller owns the slot; it becomes the next buffer of a frame of `count` bytes, and has as many of them as it takes.
  mutating func append(_ record: UnsafeMutablePointer<SlotRecord>, in pool: PacketPool, of count: Int) {
    guard let first = unsafe first, let last = unsafe last else {
      length = min(count, pool.firstBufferRoom)
      unsafe record.pointee.setFrame(offset: pool.configuration.headroom, length: length)
      unsafe record.pointee.next = SlotRecord.noSlot
      unsafe first = record
      unsafe last = record
      return
    }
    let part = min(count - length, pool.configuration.slotSize)
    unsafe record.pointee.setFrame(offset: 0, length: part)
    unsafe record.pointee.next = SlotRecord.noSlot
    unsafe last.pointee.next = record.pointee.slot
    unsafe first.pointee.segments &+= 1
    length += part
    unsafe first.pointee.frameLength = UInt32(truncatingIfNeeded: length)
    unsafe self.last = record
  }
}

extension SlotRecord {
  /// Writes bytes into a frame, from a position in it, over whichever of its buffers they fall. The frame has room for them.
  static func write(
    _ bytes: UnsafeRawBufferPointer, at position: Int, to first: UnsafeMutablePointer<SlotRecord>
  ) {
    let records = unsafe first.pointee.pool.takeUnretainedValue().records
    var record = unsafe first
    var skip = position
    var done = 0
    for _ in unsafe 0..<first.pointee.segments {
      let length = unsafe Int(record.pointee.length)
      if skip < length {
        let part = min(length - skip, bytes.count - done)
        guard part > 0, let base = bytes.baseAddress else { return }
        unsafe record.pointee.start.advanced(by: skip).copyMemory(from: base + done, byteCount: part)
        done += part
        skip = 0
      } else {
        skip -= length
      }
      let next = unsafe record.pointee.next
      guard next != noSlot else { return }
      unsafe record = records.advanced(by: Int(next))
    }
  }

  /// Whether the frame's length is within a limit, which for a frame with VLAN tags is longer.
  static func isWithin(_ limit: FrameLimit, _ first: UnsafeMutablePointer<SlotRecord>) -> Bool {
    let length = unsafe Int(first.pointee.frameLength)
    if length <= limit.untagged { return true }
    guard length <= limit.longest else { return false }
    // Both addresses, two tags and the type between them: copied once, wherever the first bytes lie.
    var start = InlineArray<18, UInt8>(repeating: 0)
    var room = start.mutableSpan
    let records = unsafe first.pointee.pool.takeUnretainedValue().records
    var record = unsafe first
    var done = 0
    for _ in unsafe 0..<first.pointee.segments where done < room.count {
      let part = unsafe min(Int(record.pointee.length), room.count - done)
      for position in 0..<part {
        room[done + position] = unsafe record.pointee.start.load(fromByteOffset: position, as: UInt8.self)
      }
      done += part
      let next = unsafe record.pointee.next
      guard next != noSlot else { break }
      unsafe record = records.advanced(by: Int(next))
    }
    // Bytes are bytes.
    return unsafe limit.admits(length: length, startingWith: start.span.bytes)
  }
}
