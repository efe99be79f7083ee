/// What a side of a packed ring says about notifications, in the low half of the flags (VIRTIO 1.4 §2.8.10, §2.8.14).
@usableFromInline
enum EventFlag {
  /// Tell me always.
  @usableFromInline static let enable: UInt32 = 0
  /// Do not tell me: in the upper half of the word of event suppression, off_wrap in the lower.
  @usableFromInline static let disable: UInt32 = 1 << 16
  /// With EVENT_IDX: tell me when the position of off_wrap is passed.
  @usableFromInline static let descriptor: UInt32 = 2 << 16
  /// What is told apart.
  @usableFromInline static let wishes: UInt32 = 3 << 16
}

extension EventIndex {
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
