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

  /// The same for a packed ring (§2.8.10), whose indices are places: true when advancing by `advance` descriptors, to `place` on
  /// the lap of `wrap`, passed the descriptor that `offWrap` names.
  ///
  /// Whatever the other side has written there is an answer: an event beyond the ring is never passed, but by a whole lap.
  @inlinable
  @inline(__always)
  static func isPassed(offWrap: UInt16, advance: UInt32, to place: UInt32, wrap: Bool, size: UInt32) -> Bool {
    if advance >= size { return true }
    // How far behind `place` the event lies; negative when it is still to come. None of the terms exceeds 2¹⁶.
    var behind = Int(place) &- Int(offWrap & 0x7fff)
    if (offWrap & 0x8000 != 0) != wrap { behind &+= Int(size) }
    return behind > 0 && behind <= Int(advance)
  }
}
