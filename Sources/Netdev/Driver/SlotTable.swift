internal import PacketFormats

/// The buffers of a pool as a driver sees them: by slot number.
///
/// A driver touches only slots that it owns: those it was given to post or transmit, until it has handed them back. Slot
/// numbers come from `Netdev` (trusted), never from a peer: a driver keeps what it published in a private table.
@safe @frozen public struct SlotTable {
  @usableFromInline let records: UnsafeMutablePointer<SlotRecord>
  /// Number of slots.
  public let count: Int
  /// Bytes before a received frame in each buffer, where a net header goes.
  public let headroom: Int
  /// Size of each buffer in bytes, headroom included.
  public let slotSize: Int

  init(_ pool: PacketPool) {
    unsafe records = pool.records
    count = pool.configuration.slots
    headroom = pool.configuration.headroom
    slotSize = pool.configuration.slotSize
  }

  /// First byte of the slot's buffer.
  @unsafe @inlinable public func base(of slot: UInt32) -> UnsafeMutableRawPointer {
    unsafe records[Int(slot)].base
  }

  /// First byte of the frame in the buffer of `slot`.
  @unsafe @inlinable public func start(of slot: UInt32) -> UnsafeMutableRawPointer {
    unsafe records[Int(slot)].start
  }

  /// Offset of the frame's first byte in the buffer of `slot`.
  @inlinable public func offset(of slot: UInt32) -> Int { unsafe Int(records[Int(slot)].offset) }

  /// Bytes of the frame in the buffer of `slot`.
  @inlinable public func length(of slot: UInt32) -> Int { unsafe Int(records[Int(slot)].length) }

  /// Buffers of the frame that begins in `slot`.
  @inlinable public func segments(of slot: UInt32) -> Int { unsafe Int(records[Int(slot)].segments) }

  /// The buffer after `slot` in a frame of several; only where there is one.
  @inlinable public func next(after slot: UInt32) -> UInt32 { unsafe records[Int(slot)].next }

  /// Whether the length of the frame that begins in `slot` is within the device's limit for frames without VLAN tags
  /// (``NetworkDeviceInformation/maximumFrameLength``), or, with tags, longer by no more than these.
  public func admits(frameIn slot: UInt32, maximumLength: Int) -> Bool {
    unsafe SlotRecord.isWithin(FrameLimit(untagged: maximumLength), records.advanced(by: Int(slot)))
  }

  /// A frame was received into `slot`: `length` bytes after the headroom, where every posted buffer begins.
  @inlinable public func setReceived(slot: UInt32, length: Int) {
    let length = UInt32(truncatingIfNeeded: length)
    unsafe records[Int(slot)].length = length
    unsafe records[Int(slot)].frameLength = length
  }

  /// Makes the buffers of a frame that is not handed on single again, to be posted anew.
  public func separate(slot: UInt32) {
    unsafe records[Int(slot)].setFrame(offset: headroom, length: 0)
  }

  /// Appends the buffer `slot`, which holds `length` bytes from `offset` on, to the frame that begins in `first` and ends
  /// in `last`.
  public func append(slot: UInt32, offset: Int, length: Int, to first: UInt32, last: UInt32) {
    unsafe records[Int(slot)].setFrame(offset: offset, length: length)
    unsafe records[Int(slot)].next = SlotRecord.noSlot
    unsafe records[Int(last)].next = slot
    unsafe records[Int(first)].segments &+= 1
    unsafe records[Int(first)].frameLength &+= UInt32(truncatingIfNeeded: length)
  }
}
