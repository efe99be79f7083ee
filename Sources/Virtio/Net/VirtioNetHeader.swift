public import CNetdevSystem

/// The virtio-net header in front of every frame (VIRTIO 1.4 §5.1.9): 12 bytes, little-endian.
///
/// A header from the peer lies in memory that the peer may still write. It is loaded once into a value of this type, and
/// only the value is looked at: `receiveOffload` for a driver, `transmitOffload` for a device say what in it can be relied
/// on. Longer headers, negotiated with HASH_REPORT and others, begin with these 12 bytes.
@frozen
public struct VirtioNetHeader: Hashable, Sendable {
  /// Bytes of this header.
  public static let size = 12

  /// The flags of a header.
  @frozen
  public struct Flags: OptionSet, Hashable, Sendable {
    /// The bits.
    public let rawValue: UInt8
    /// Flags of these bits.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The checksum at `checksumStart` + `checksumOffset` is partial.
    @inlinable public static var needsChecksum: Flags { Flags(rawValue: 1) }
    /// The device has verified the checksum. Never set by a driver (§5.1.9.2.1).
    @inlinable public static var dataValid: Flags { Flags(rawValue: 2) }
    /// The checksum fields tell about coalesced segments instead.
    @inlinable public static var receiveSegmentCoalescing: Flags { Flags(rawValue: 4) }
    /// The outer checksum of a UDP tunnel is partial too.
    @inlinable public static var udpTunnelChecksum: Flags { Flags(rawValue: 8) }
  }

  /// How a large frame is to be cut.
  @frozen
  public struct Segmentation: RawRepresentable, Hashable, Sendable {
    /// The value of `gso_type`.
    public let rawValue: UInt8
    /// The segmentation of this value.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Not at all.
    @inlinable public static var none: Segmentation { Segmentation(rawValue: 0) }
    /// TCP over IPv4.
    @inlinable public static var tcp4: Segmentation { Segmentation(rawValue: 1) }
    /// UDP, by fragments.
    @inlinable public static var udpFragments: Segmentation { Segmentation(rawValue: 3) }
    /// TCP over IPv6.
    @inlinable public static var tcp6: Segmentation { Segmentation(rawValue: 4) }
    /// UDP, a datagram each.
    @inlinable public static var udpSegments: Segmentation { Segmentation(rawValue: 5) }
    /// Set beside TCP over either: the segments carry ECN.
    @inlinable public static var ecnBit: UInt8 { 0x80 }
    /// This segmentation without its ECN bit.
    @inlinable public var withoutECN: Segmentation { Segmentation(rawValue: rawValue & ~Self.ecnBit) }
    /// True when the ECN bit is set.
    @inlinable public var hasECN: Bool { rawValue & Self.ecnBit != 0 }
  }

  /// `flags`.
  public var flags: Flags
  /// `gso_type`.
  public var segmentation: Segmentation
  /// `hdr_len`, bytes of the frame's own headers: a hint, never a length to trust.
  public var headerLength: UInt16
  /// `gso_size`, bytes of payload in each segment.
  public var segmentSize: UInt16
  /// `csum_start`, offset in the frame where checksumming begins.
  public var checksumStart: UInt16
  /// `csum_offset`, where the checksum goes, from `checksumStart` on.
  public var checksumOffset: UInt16
  /// `num_buffers`, how many buffers a received frame fills. Zero on transmission (§5.1.9.2.1).
  public var numBuffers: UInt16

  /// A header with these fields; all zero without arguments, which is the header of a plain transmitted frame.
  @inlinable
  public init(
    flags: Flags = [], segmentation: Segmentation = .none, headerLength: UInt16 = 0, segmentSize: UInt16 = 0,
    checksumStart: UInt16 = 0, checksumOffset: UInt16 = 0, numBuffers: UInt16 = 0
  ) {
    self.flags = flags
    self.segmentation = segmentation
    self.headerLength = headerLength
    self.segmentSize = segmentSize
    self.checksumStart = checksumStart
    self.checksumOffset = checksumOffset
    self.numBuffers = numBuffers
  }

  /// The header in the first 12 bytes of a private copy, given as 8 and 4 bytes in native order.
  @inlinable
  @inline(__always)
  public init(copied first: UInt64, _ second: UInt32) {
    flags = Flags(rawValue: UInt8(truncatingIfNeeded: first))
    segmentation = Segmentation(rawValue: UInt8(truncatingIfNeeded: first &>> 8))
    headerLength = UInt16(truncatingIfNeeded: first &>> 16)
    segmentSize = UInt16(truncatingIfNeeded: first &>> 32)
    checksumStart = UInt16(truncatingIfNeeded: first &>> 48)
    checksumOffset = UInt16(truncatingIfNeeded: second)
    numBuffers = UInt16(truncatingIfNeeded: second &>> 16)
  }

  /// The header in the first 12 bytes of `bytes`, a private copy; nil when there are fewer.
  @inlinable
  public init?(copied bytes: RawSpan) {
    guard bytes.byteCount >= Self.size else { return nil }
    self.init(
      copied: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self),
      unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt32.self))
  }

  /// The header at `place`, shared memory: 12 readable bytes aligned to 8, each loaded once.
  @inlinable
  @inline(__always)
  public init(loadingOnceFrom place: UnsafeRawPointer) {
    unsafe self.init(copied: netdev_load_relaxed_u64(place), netdev_load_relaxed_u32(place + 8))
  }

  /// Writes the header to 12 bytes at `place`, of any alignment.
  @inlinable
  @inline(__always)
  public func store(to place: UnsafeMutableRawPointer) {
    let low = UInt64(flags.rawValue) | UInt64(segmentation.rawValue) << 8 | UInt64(headerLength) << 16
    let high = UInt64(segmentSize) << 32 | UInt64(checksumStart) << 48
    unsafe place.storeBytes(of: low | high, as: UInt64.self)
    unsafe (place + 8).storeBytes(of: UInt32(checksumOffset) | UInt32(numBuffers) << 16, as: UInt32.self)
  }

  /// True when the first two bytes of a header, in native order, ask for nothing: no flag, no segmentation.
  @inlinable
  @inline(__always)
  public static func isPlain(copied first: UInt16) -> Bool { first == 0 }

  /// True when a received frame asks for nothing and is all in this buffer: `first` as for `isPlain(copied:)`, and the
  /// buffers that the device says it used.
  @inlinable
  @inline(__always)
  public static func isPlain(copied first: UInt16, numBuffers: UInt16) -> Bool { first | (numBuffers ^ 1) == 0 }

  /// True when nothing is asked for: no flag, no segmentation.
  @inlinable public var isPlain: Bool { flags.rawValue | segmentation.rawValue == 0 }
}
