/// Where a side of a packed ring is: a place, and the wrap counter of the lap (VIRTIO 1.4 §2.8.1).
@frozen
@usableFromInline
struct RingPosition {
  /// Below the size.
  @usableFromInline var place: UInt32
  /// The wrap counter: as both marks of a descriptor, or none.
  @usableFromInline var marks: UInt16

  @inlinable
  @inline(__always)
  init(_ index: UInt16) {
    place = UInt32(index & 0x7fff)
    marks = index & 0x8000 != 0 ? DescriptorFlag.marks : 0
  }

  /// The place in bits 0 to 14, the wrap counter in bit 15: as off_wrap and vhost-user's bases have it (§2.8.14).
  @inlinable
  @inline(__always)
  var index: UInt16 { UInt16(truncatingIfNeeded: place) | marks & DescriptorFlag.used }

  /// The marks of a descriptor that the driver makes available on this lap.
  @inlinable
  @inline(__always)
  var availableMarks: UInt16 { (marks ^ DescriptorFlag.used) & DescriptorFlag.marks }

  /// Goes on by no more than a lap.
  @inlinable
  @inline(__always)
  mutating func advance(by count: UInt32, size: UInt32) {
    place &+= count
    if place >= size {
      place &-= size
      marks ^= DescriptorFlag.marks
    }
  }

  /// Goes back by no more than a lap.
  @inlinable
  mutating func goBack(by count: UInt32, size: UInt32) {
    if place < count {
      place &+= size
      marks ^= DescriptorFlag.marks
    }
    place &-= count
  }
}
