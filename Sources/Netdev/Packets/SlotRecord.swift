internal import CNetdevSystem

/// The private record of one packet buffer: where its bytes are, what a frame in it occupies, and which object stands for it.
///
/// One cache line a slot, in memory that no device sees. Whoever owns the slot owns the record: the pool while it is free,
/// a packet while somebody holds one, the driver from publication until the used entry is consumed.
///
/// `object` is the travelling object: the address of the `PacketObject` that stands for the buffer, or 0. It is never
/// retained *by the record*; the owner of the slot owns one reference to it.
@safe @frozen @usableFromInline
struct SlotRecord {
  /// First byte of the buffer.
  @usableFromInline let base: UnsafeMutableRawPointer
  /// Address of the packet object, 0 when there is none.
  @usableFromInline var object: UInt
  /// The free list of the queue that took the slot last, which also knows the pool; it lives as long as the pool.
  @usableFromInline var home: UnsafeMutablePointer<LocalSlots>
  /// Address of a contiguous copy of a frame in several buffers, 0 until somebody asks for one.
  @usableFromInline var linear: UInt
  /// Number of the slot in its pool, `heapSlot` for a buffer outside.
  @usableFromInline let slot: UInt32
  /// Link in the pool's shared list, and to the next buffer of a frame in several.
  @usableFromInline var next: UInt32
  /// Size of the buffer in bytes.
  @usableFromInline let capacity: UInt32
  /// Where the frame's bytes begin in the buffer.
  @usableFromInline var offset: UInt32
  // The next two are stored together when a frame comes in.
  /// Bytes of the frame in this buffer.
  @usableFromInline var length: UInt32
  /// Bytes of the frame in all its buffers; meaningful in its first.
  @usableFromInline var frameLength: UInt32
  // The next three are, too, when a buffer is made ready for a frame.
  /// Buffers of the frame; meaningful in its first.
  @usableFromInline var segments: UInt16
  /// 1 while a flight of a packet that others hold too has the bytes before the frame to itself, for its net header: see `takeFront`.
  @usableFromInline var front: UInt16
  /// What the device said of the frame; meaningful in its first buffer.
  @usableFromInline var notes: UInt32

  @usableFromInline static var heapSlot: UInt32 { .max }
  @usableFromInline static var noSlot: UInt32 { .max }

  @usableFromInline init(
    base: UnsafeMutableRawPointer, home: UnsafeMutablePointer<LocalSlots>, slot: UInt32, capacity: UInt32
  ) {
    unsafe self.base = base
    object = 0
    unsafe self.home = home
    linear = 0
    self.slot = slot
    next = Self.noSlot
    offset = 0
    length = 0
    self.capacity = capacity
    frameLength = 0
    segments = 1
    front = 0
    notes = 0
  }

  /// The pool, which outlives its records.
  @inlinable var pool: Unmanaged<PacketPool> { unsafe home.pointee.pool }

  /// The record describes a frame that lies in this buffer alone.
  @inlinable mutating func setFrame(offset: Int, length: Int) {
    self.offset = UInt32(truncatingIfNeeded: offset)
    self.length = UInt32(truncatingIfNeeded: length)
    frameLength = UInt32(truncatingIfNeeded: length)
    segments = 1
    front = 0
    notes = 0
  }

  /// With an address sanitizer, whoever touches the buffer from now on is reported: it is free.
  @inline(__always) func poison() { unsafe netdev_poison(base, Int(capacity)) }

  /// The buffer may be touched again.
  @inline(__always) func unpoison() { unsafe netdev_unpoison(base, Int(capacity)) }

  /// First byte of the frame in this buffer.
  @inlinable var start: UnsafeMutableRawPointer { unsafe base.advanced(by: Int(offset)) }
}

// A packet that several hold may be sent by several of them, through several queues, at the same time. Nobody changes it then, so one
// descriptor would do for each; but the net header lies before the frame, and a device may be reading that of another flight. One
// flight at a time has these bytes; it is the driver's reference that keeps the buffer meanwhile. Who has the only reference need not ask:
// no flight is under way.
extension SlotRecord {
  /// From any thread that holds the packet: a flight takes the bytes before the frame, unless another one has them.
  static func takeFront(_ record: UnsafeMutablePointer<SlotRecord>) -> Bool {
    unsafe netdev_exchange_acquire_u16(&record.pointee.front, 1) == 0
  }

  /// The flight that took them is over; its reference is given up after this.
  static func leaveFront(_ record: UnsafeMutablePointer<SlotRecord>) {
    unsafe netdev_store_release_u16(&record.pointee.front, 0)
  }
}
