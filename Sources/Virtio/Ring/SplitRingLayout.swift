/// Sizes, offsets and alignments of a split ring's three areas (VIRTIO 1.4 §2.7).
///
/// The descriptor table has 16 bytes an entry; the available ring is flags, idx, an entry of 2 bytes each, and used_event;
/// the used ring is flags, idx, an entry of 8 bytes each, and avail_event. Both sides of a ring count with these figures.
@frozen
public struct SplitRingLayout: Hashable, Sendable {
  /// Number of descriptors: a power of two from 1 to 32768.
  public let size: UInt16

  /// The largest size of a split ring (VIRTIO 1.4 §2.7).
  public static let maximumSize = 32768
  /// Alignment of the descriptor table in bytes.
  public static let descriptorAlignment = 16
  /// Alignment of the available ring in bytes.
  public static let availAlignment = 2
  /// Alignment of the used ring in bytes.
  public static let usedAlignment = 4

  /// The layout of a ring of `size` descriptors; throws `.size` unless it is a power of two from 1 to 32768.
  public init(size: Int) throws(RingError) {
    guard size > 0, size <= Self.maximumSize, size & (size - 1) == 0 else {
      throw RingError(.size, UInt64(truncatingIfNeeded: size))
    }
    self.size = UInt16(truncatingIfNeeded: size)
  }

  /// Bytes of the descriptor table.
  public var descriptorBytes: Int { 16 * Int(size) }
  /// Bytes of the available ring, used_event included.
  public var availBytes: Int { 6 + 2 * Int(size) }
  /// Bytes of the used ring, avail_event included.
  public var usedBytes: Int { 6 + 8 * Int(size) }

  /// Offset of the available ring when the three areas follow one another from an address aligned to 16.
  public var availOffset: Int { descriptorBytes }
  /// Offset of the used ring in such a block. It starts a cache line of its own, for the other side writes it.
  public var usedOffset: Int { (availOffset + availBytes + 63) & ~63 }
  /// Bytes of such a block.
  public var totalBytes: Int { usedOffset + usedBytes }

  /// Throws unless three areas at these addresses are aligned, disjoint, and end before 2⁶⁴.
  func check(descriptors: UInt64, avail: UInt64, used: UInt64) throws(RingError) {
    guard descriptors % 16 == 0 else { throw RingError(.descriptorAlignment, descriptors) }
    guard avail % 2 == 0 else { throw RingError(.availAlignment, avail) }
    guard used % 4 == 0 else { throw RingError(.usedAlignment, used) }
    let areas: [(start: UInt64, bytes: UInt64)] = [
      (descriptors, UInt64(descriptorBytes)), (avail, UInt64(availBytes)), (used, UInt64(usedBytes)),
    ]
    for (index, area) in areas.enumerated() {
      guard !area.start.addingReportingOverflow(area.bytes).overflow else { throw RingError(.areaOverlap, area.start) }
      for other in areas[..<index]
      where area.start < other.start + other.bytes && other.start < area.start + area.bytes {
        throw RingError(.areaOverlap, area.start)
      }
    }
  }
}

/// Flags of a split ring's descriptor (VIRTIO 1.4 §2.7.5).
@usableFromInline
enum DescriptorFlag {
  /// The chain goes on at `next`.
  @usableFromInline static let next: UInt16 = 1
  /// The device writes this buffer.
  @usableFromInline static let write: UInt16 = 2
  /// The buffer is a table of descriptors.
  @usableFromInline static let indirect: UInt16 = 4

  /// The second eight bytes of a descriptor: len, flags, next.
  @inlinable
  @inline(__always)
  static func word(length: UInt32, flags: UInt16, next: UInt16) -> UInt64 {
    UInt64(length) | UInt64(flags) << 32 | UInt64(next) << 48
  }
}

#if _endian(big)
#error("Ring fields are little-endian and are read here in native order")
#endif
