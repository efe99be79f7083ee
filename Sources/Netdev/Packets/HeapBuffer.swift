/// A buffer outside the pool's region, for a copy made when the pool is empty: record and bytes in one allocation each.
///
/// The device cannot see it; when it is sent, its bytes move to a slot.
enum HeapBuffer {
  /// A record with `capacity` bytes behind it.
  static func make(capacity: Int, home: UnsafeMutablePointer<LocalSlots>) -> UnsafeMutablePointer<SlotRecord> {
    let base = UnsafeMutableRawPointer.allocate(byteCount: max(capacity, 1), alignment: 64)
    let record = UnsafeMutablePointer<SlotRecord>.allocate(capacity: 1)
    unsafe record.initialize(
      to: SlotRecord(
        base: base, home: home, slot: SlotRecord.heapSlot, capacity: UInt32(clamping: capacity)))
    return unsafe record
  }

  static func free(_ record: UnsafeMutablePointer<SlotRecord>) {
    unsafe record.pointee.base.deallocate()
    unsafe record.deallocate()
  }
}
