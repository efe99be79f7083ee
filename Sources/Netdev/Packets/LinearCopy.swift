internal import CNetdevSystem
internal import Glibc

/// Frames in several buffers, shown as one.
///
/// Readers may be many and on any thread, so the copy is published once: the first one made wins, others are freed.
extension SlotRecord {
  /// The frame's bytes in one piece: in place for a frame in one buffer, else a copy that lives as long as the frame.
  static func contiguousBytes(_ first: UnsafeMutablePointer<SlotRecord>) -> UnsafeMutableRawPointer {
    if unsafe first.pointee.segments == 1 { return unsafe first.pointee.start }
    let existing = unsafe netdev_load_acquire_word(&first.pointee.linear)
    if existing != 0, let copy = unsafe UnsafeMutableRawPointer(bitPattern: existing) { return unsafe copy }
    let copy = UnsafeMutableRawPointer.allocate(
      byteCount: max(unsafe Int(first.pointee.frameLength), 1), alignment: 16)
    unsafe copyFrame(first, to: copy)
    var expected: UInt = 0
    while unsafe !netdev_compare_exchange_word(&first.pointee.linear, &expected, UInt(bitPattern: copy)) {
      if expected != 0, let other = unsafe UnsafeMutableRawPointer(bitPattern: expected) {
        unsafe copy.deallocate()
        return unsafe other
      }
    }
    unsafe first.pointee.pool.takeUnretainedValue().noteLinearCopy()
    return unsafe copy
  }

  /// Changes a frame in several buffers, of which the caller is the only holder: in the contiguous copy, from which it is
  /// written back, so that both say the same.
  @inline(never) static func change<Result, Failure: Error>(
    _ first: UnsafeMutablePointer<SlotRecord>, _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let length = unsafe Int(first.pointee.frameLength)
    let copy = unsafe contiguousBytes(first)
    defer { unsafe write(UnsafeRawBufferPointer(start: copy, count: length), at: 0, to: first) }
    var span = unsafe MutableRawSpan(_unsafeStart: copy, byteCount: length)
    return try body(&span)
  }

  /// Copies a frame, from all its buffers, to memory that has room for `frameLength` bytes.
  static func copyFrame(_ first: UnsafeMutablePointer<SlotRecord>, to destination: UnsafeMutableRawPointer) {
    let records = unsafe first.pointee.pool.takeUnretainedValue().records
    var record = unsafe first
    var written = 0
    for _ in unsafe 0..<first.pointee.segments {
      let length = unsafe Int(record.pointee.length)
      unsafe destination.advanced(by: written).copyMemory(from: record.pointee.start, byteCount: length)
      written += length
      let next = unsafe record.pointee.next
      guard next != noSlot else { return }
      unsafe record = records.advanced(by: Int(next))
    }
  }

  /// The frame is gone or about to change.
  mutating func dropLinearCopy() {
    guard linear != 0 else { return }
    unsafe UnsafeMutableRawPointer(bitPattern: linear)?.deallocate()
    linear = 0
  }
}
