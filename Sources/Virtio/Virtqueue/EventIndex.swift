/// The arithmetic of event indices (VIRTIO 1.4 §2.7.7, §2.7.10), shared by both sides.
///
/// With EVENT_IDX each side publishes the index at which it wants to be told; the other tells it when an index passes that
/// point. The `!=` of the example in §2.7.14 is inverted; the formula below is the one of §2.7.10 and of Linux.
@frozen
public enum EventIndex {
  /// True when advancing from `old` to `new` passed the entry `event`: then the other side is to be told.
  ///
  /// All three are 16-bit indices and wrap. The formula cannot see an advance of 65536, and with 65535 every event is hit,
  /// so whoever may advance that far between two questions counts, and tells unconditionally.
  @inlinable
  @inline(__always)
  public static func isPassed(_ event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
    (new &- event &- 1) < (new &- old)
  }

  /// The event half of a packed ring's notifications (§2.8.10), whose indices are places: true when the other side, which has
  /// written `word` about them, asks to be told of the last `advance` descriptors. They end at `next`, less those that are hidden.
  @inlinable
  @inline(__always)
  static func isWanted(
    _ word: UInt32, at next: RingPosition, hidden: UInt32, advance: UInt32, size: UInt32, eventIndex: Bool
  ) -> Bool {
    let wish = word & EventFlag.wishes
    if wish == EventFlag.disable { return false }
    guard eventIndex, wish == EventFlag.descriptor else { return true }
    if advance >= size { return true }
    var place = next
    place.goBack(by: hidden, size: size)
    // Whatever the other side has written is an answer: an event beyond the ring is never passed, but by a whole lap. How far
    // behind `place` it lies; negative when it is still to come. None of the terms exceeds 2¹⁶.
    var behind = Int(place.place) &- Int(word & 0x7fff)
    if (word & 0x8000 != 0) != (place.marks != 0) { behind &+= Int(size) }
    return behind > 0 && behind <= Int(advance)
  }
}
