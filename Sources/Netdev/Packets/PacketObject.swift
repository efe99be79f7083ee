internal import CNetdevSystem

/// The object behind a packet: 24 bytes that stand for one buffer.
///
/// It travels with its buffer. While the buffer is in flight the driver holds the same object; when the used entry comes
/// back and that reference is the only one, the object stays with the slot and serves the next frame in it: a forwarded
/// packet allocates nothing and retains nothing. When the last reference goes elsewhere, the object goes and the buffer is free.
///
/// An object keeps its pool, except while its slot lies in the pool's shared list: the pool owns it then, and frees it at
/// its own end.
@safe @usableFromInline
final class PacketObject: Sendable {
  // Proof: the record is written only by the owner of the slot; a packet writes only while its reference is unique.
  @usableFromInline nonisolated(unsafe) let record: UnsafeMutablePointer<SlotRecord>

  /// The caller owns the slot and hands it over; the pool stays alive as long as the object.
  @usableFromInline init(record: UnsafeMutablePointer<SlotRecord>) {
    unsafe self.record = record
    _ = unsafe record.pointee.pool.retain()
    unsafe record.pointee.object = UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque())
  }

  deinit {
    // The pool frees what lies in its shared list, and its slot with it.
    if unsafe record.pointee.object == 0 { return }
    unsafe netdev_note_last(Unmanaged.passUnretained(self).toOpaque())
    let pool = unsafe record.pointee.pool
    unsafe record.pointee.object = 0
    unsafe record.pointee.dropLinearCopy()
    if unsafe record.pointee.slot == SlotRecord.heapSlot {
      unsafe HeapBuffer.free(record)
    } else {
      unsafe PacketPool.freeFrame(record)
    }
    unsafe pool.release()
  }
}

extension PacketPool {
  /// From any thread: the frame that begins in this slot is gone; its buffers are free.
  static func freeFrame(_ first: UnsafeMutablePointer<SlotRecord>) {
    if unsafe first.pointee.segments == 1, unsafe keepAtHome(first) { return }
    let pool = unsafe first.pointee.pool.takeUnretainedValue()
    var record = unsafe first
    var remaining = unsafe first.pointee.segments
    while true {
      let next = unsafe record.pointee.next
      unsafe pool.freeSlot(record)
      remaining -= 1
      guard remaining > 0, next != SlotRecord.noSlot else { return }
      unsafe record = pool.records.advanced(by: Int(next))
    }
  }

  /// From any thread: one buffer is free. On the loop of the queue that took it last it stays at hand there; when somebody waits
  /// for buffers, until the end of the turn.
  func freeSlot(_ record: UnsafeMutablePointer<SlotRecord>) {
    if unsafe Self.keepAtHome(record) { return }
    unsafe record.pointee.poison()
    unsafe record.pointee.segments = 1
    let home = unsafe record.pointee.home
    guard unsafe Self.isHome(home) else { return giveBack(unsafe record.pointee.slot) }
    // Full.
    unsafe spill(home, keeping: LocalSlots.capacity / 2)
    _ = unsafe Self.keepAtHome(record)
  }

  /// One buffer is free, on the loop of the queue that took it last, and there is room for it at hand.
  @inline(__always) private static func keepAtHome(_ record: UnsafeMutablePointer<SlotRecord>) -> Bool {
    let home = unsafe record.pointee.home
    guard unsafe isHome(home), unsafe home.pointee.count < LocalSlots.capacity else { return false }
    unsafe record.pointee.poison()
    unsafe record.pointee.segments = 1
    unsafe home.pointee.slots[home.pointee.count] = record.pointee.slot
    unsafe home.pointee.count &+= 1
    return true
  }

  /// The list is that of a queue on this thread's loop.
  @inline(__always) private static func isHome(_ list: UnsafeMutablePointer<LocalSlots>) -> Bool {
    let loop = unsafe netdev_load_relaxed_word(&list.pointee.loop)
    return loop != 0 && netdev_current_loop_identity() == loop
  }
}
