/// Where a side of a packed ring is: a place, and the wrap counter of the lap (VIRTIO 1.4 §2.8.1).
struct PackedPlace: Hashable {
  var place: Int
  var wrap: Bool

  /// From bits 0 to 14 and bit 15.
  init(_ index: UInt16) { (place, wrap) = (Int(index & 0x7fff), index & 0x8000 != 0) }

  /// As it was made of.
  var index: UInt16 { UInt16(truncatingIfNeeded: place) | (wrap ? 0x8000 : 0) }

  /// Goes on by any number of places.
  mutating func advance(_ count: Int = 1, of size: Int) {
    place += count
    while place >= size { (place, wrap) = (place - size, !wrap) }
  }

  /// Goes back by any number of places.
  mutating func goBack(_ count: Int, of size: Int) {
    place -= count
    while place < 0 { (place, wrap) = (place + size, !wrap) }
  }

  /// Whether a side that has gone on by `count` places, to here, has passed what the other side wishes to be told of: one word of
  /// event suppression, off_wrap in its lower half, then flags (§2.8.10, §2.8.14).
  func fulfils(_ wish: UInt32, by count: Int, of size: Int) -> Bool {
    guard count > 0 else { return false }
    switch wish >> 16 {
    case 0: return true
    case 2:
      let event = PackedPlace(UInt16(truncatingIfNeeded: wish))
      var place = self
      for _ in 0..<min(count, size) {
        place.goBack(1, of: size)
        if place == event { return true }
      }
      return false
    default: return false
    }
  }
}
