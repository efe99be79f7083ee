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
}
