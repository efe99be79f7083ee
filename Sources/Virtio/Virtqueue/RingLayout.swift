/// How a virtqueue lies in memory: in which of the two formats of VIRTIO 1.4.
public enum RingFormat: Sendable, Hashable, CaseIterable {
  /// A descriptor table, an available ring and a used ring (§2.7).
  case split
  /// One ring of descriptors that both sides write, and a word of each side about notifications (§2.8); needs RING_PACKED.
  case packed

  /// The index that both sides start at when nothing else is agreed: 0, and in a packed ring a wrap counter of 1 in bit 15
  /// (§2.8.1).
  @inlinable public var firstIndex: UInt16 { self == .split ? 0 : 0x8000 }
}

/// Sizes, offsets and alignments of a ring's three areas (VIRTIO 1.4 §2.7, §2.8). Both sides of a ring count with these figures.
///
/// Split: a descriptor table of 16 bytes an entry; the driver area is flags, idx, an entry of 2 bytes each, and used_event; the
/// device area is flags, idx, an entry of 8 bytes each, and avail_event. Packed: a ring of 16 bytes an entry; driver and device
/// area are 4 bytes each, for event suppression.
@frozen
public struct RingLayout: Hashable, Sendable {
  /// Split or packed.
  public let format: RingFormat
  /// Number of descriptors: of a split ring a power of two, of a packed one any number, from 1 to 32768.
  public let size: UInt16

  /// The largest size of a ring of either format (VIRTIO 1.4 §2.7, §2.8.10.1).
  public static let maximumSize = 32768
  /// Alignment of the descriptors in bytes.
  public static let descriptorAlignment = 16

  /// The layout of a ring of `size` descriptors; throws `.size` unless the format has rings of that size.
  public init(_ format: RingFormat, size: Int) throws(RingError) {
    guard size > 0, size <= Self.maximumSize, format == .packed || size & (size - 1) == 0 else {
      throw RingError(.size, UInt64(truncatingIfNeeded: size))
    }
    self.format = format
    self.size = UInt16(truncatingIfNeeded: size)
  }

  /// The largest size of this format that is no more than `limit`; 0 when there is none.
  public static func largestSize(_ format: RingFormat, upTo limit: Int) -> Int {
    let limit = max(0, min(limit, maximumSize))
    if format == .packed || limit == 0 { return limit }
    return 1 << (Int.bitWidth - 1 - limit.leadingZeroBitCount)
  }

  /// Alignment of the driver area in bytes.
  public var driverAlignment: Int { format == .split ? 2 : 4 }
  /// Alignment of the device area in bytes.
  public var deviceAlignment: Int { 4 }

  /// Bytes of the descriptors.
  public var descriptorBytes: Int { 16 * Int(size) }
  /// Bytes of the driver area, used_event included.
  public var driverBytes: Int { format == .split ? 6 + 2 * Int(size) : 4 }
  /// Bytes of the device area, avail_event included.
  public var deviceBytes: Int { format == .split ? 6 + 8 * Int(size) : 4 }

  /// Offset of the driver area when the three areas follow one another from an address aligned to 16.
  public var driverOffset: Int { format == .split ? descriptorBytes : Self.wholeLines(descriptorBytes) }
  /// Offset of the device area in such a block. It starts a cache line of its own, for the other side writes it.
  public var deviceOffset: Int { Self.wholeLines(driverOffset + driverBytes) }
  /// Bytes of such a block.
  public var totalBytes: Int { deviceOffset + deviceBytes }

  private static func wholeLines(_ bytes: Int) -> Int { (bytes + 63) & ~63 }

  /// Throws unless three areas at these addresses are aligned, disjoint, and end before 2⁶⁴.
  func check(descriptors: UInt64, driver: UInt64, device: UInt64) throws(RingError) {
    guard descriptors % 16 == 0 else { throw RingError(.descriptorAlignment, descriptors) }
    guard driver % UInt64(driverAlignment) == 0 else { throw RingError(.driverAlignment, driver) }
    guard device % UInt64(deviceAlignment) == 0 else { throw RingError(.deviceAlignment, device) }
    let areas: [(start: UInt64, bytes: UInt64)] = [
      (descriptors, UInt64(descriptorBytes)), (driver, UInt64(driverBytes)), (device, UInt64(deviceBytes)),
    ]
    for (index, area) in areas.enumerated() {
      guard !area.start.addingReportingOverflow(area.bytes).overflow else { throw RingError(.areaOverlap, area.start) }
      for other in areas[..<index]
      where area.start < other.start + other.bytes && other.start < area.start + area.bytes {
        throw RingError(.areaOverlap, area.start)
      }
    }
  }

  /// Throws unless a ring of this layout can start at `index`: in a packed ring bits 0 to 14 are a place in it.
  func check(startIndex index: UInt16) throws(RingError) {
    guard format == .split || index & 0x7fff < size else { throw RingError(.startIndex, UInt64(index)) }
  }
}

/// Flags of a descriptor (VIRTIO 1.4 §2.7.5, §2.8.13).
@usableFromInline
enum DescriptorFlag {
  /// The chain goes on: at `next`, or in a packed ring with the descriptor that follows.
  @usableFromInline static let next: UInt16 = 1
  /// The device writes this buffer.
  @usableFromInline static let write: UInt16 = 2
  /// The buffer is a table of descriptors.
  @usableFromInline static let indirect: UInt16 = 4
  /// Packed: the driver's wrap counter when it made the descriptor available.
  @usableFromInline static let avail: UInt16 = 1 << 7
  /// Packed: the device's wrap counter when it used the descriptor; until then the reverse of the driver's.
  @usableFromInline static let used: UInt16 = 1 << 15
  /// Packed: both marks.
  @usableFromInline static let marks: UInt16 = avail | used

  /// The second eight bytes of a split ring's descriptor: len, flags, next.
  @inlinable
  @inline(__always)
  static func word(length: UInt32, flags: UInt16, next: UInt16) -> UInt64 {
    UInt64(length) | UInt64(flags) << 32 | UInt64(next) << 48
  }

  /// The second eight bytes of a packed ring's descriptor: len, id, flags.
  @inlinable
  @inline(__always)
  static func word(length: UInt32, id: UInt16, flags: UInt16) -> UInt64 {
    UInt64(length) | UInt64(id) << 32 | UInt64(flags) << 48
  }
}

#if _endian(big)
#error("Ring fields are little-endian and are read here in native order")
#endif
