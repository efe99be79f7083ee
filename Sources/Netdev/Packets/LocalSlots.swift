internal import CNetdevSystem

/// Free slots at hand for one queue: a plain stack that only its loop's thread touches.
///
/// `loop` is read from any thread (a packet may be dropped anywhere) but equals the reader's own loop only on that loop,
/// so whoever finds itself equal is the owner. It is cleared when the queue closes, before its loop can end.
@safe @frozen @usableFromInline
struct LocalSlots {
  @usableFromInline static var capacity: Int { 512 }
  @usableFromInline var count: Int
  /// Address of the owning loop, 0 when nobody owns the list. Not the first field: an access to the whole list is noted at
  /// its first byte, and this word, which other threads read by atomic loads, is no part of what the owner changes.
  @usableFromInline var loop: UInt
  /// Free slots that the owner kept when its loop went to sleep last. Written by the owner, read from any thread: a hint whom
  /// to wake for them.
  @usableFromInline var kept: UInt
  /// Where the owner counts copies of packets in its buffers; nil without one.
  var copies: UnsafeMutablePointer<UInt64>?
  @usableFromInline let slots: UnsafeMutablePointer<UInt32>
  /// The list of the same pool that was made before this one; set before anybody else can see this one.
  var earlier: UnsafeMutablePointer<LocalSlots>?

  /// The pool that the slots belong to, unretained: it frees this list as its last act.
  @usableFromInline let pool: Unmanaged<PacketPool>

  @usableFromInline init(pool: Unmanaged<PacketPool>) {
    unsafe self.pool = pool
    loop = 0
    unsafe copies = nil
    unsafe earlier = nil
    kept = 0
    count = 0
    unsafe slots = .allocate(capacity: Self.capacity)
    unsafe slots.initialize(repeating: 0, count: Self.capacity)
  }
}

extension LocalSlots {
  /// A packet in one of these buffers is copied to be changed: counted for the owner, on its loop.
  static func noteCopy(_ list: UnsafeMutablePointer<LocalSlots>) {
    guard let here = unsafe UInt(bitPattern: netdev_current_loop()) as UInt?, here != 0,
      unsafe netdev_load_relaxed_word(&list.pointee.loop) == here, let copies = unsafe list.pointee.copies
    else { return }
    unsafe netdev_store_release_u64(copies, netdev_load_acquire_u64(copies) &+ 1)
  }
}

extension PacketPool {
  /// On the owner's loop: moves all but `keeping` slots to the shared list.
  func spill(_ list: UnsafeMutablePointer<LocalSlots>, keeping: Int) {
    while unsafe list.pointee.count > keeping {
      unsafe list.pointee.count -= 1
      giveBack(unsafe list.pointee.slots[list.pointee.count])
    }
  }
}
