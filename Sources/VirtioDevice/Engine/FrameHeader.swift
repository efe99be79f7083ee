public import Virtio

/// The virtio-net header of one frame, as the two words that it is copied in (VIRTIO 1.4 §5.1.9): 12 bytes.
///
/// The driver's header is loaded once, into this value, and judged here; nobody looks at the shared bytes again.
@frozen public struct FrameHeader: Sendable, Hashable {
  /// Bytes 0–7: flags, gso_type, hdr_len, gso_size, csum_start.
  public var front: UInt64
  /// Bytes 8–11: csum_offset, num_buffers.
  public var back: UInt32

  /// The header of a frame that asks for nothing, in `buffers` receive buffers.
  @inlinable public init(buffers: UInt16 = 1) {
    front = 0
    back = UInt32(buffers) << 16
  }

  init(front: UInt64, back: UInt32) {
    self.front = front
    self.back = back
  }

  /// Bytes of the header for every driver of virtio 1.0 and later that has negotiated neither hash reports nor tunnels.
  @inlinable public static var length: Int { 12 }

  /// Flags (VIRTIO 1.4 §5.1.9).
  public var flags: UInt8 { UInt8(truncatingIfNeeded: front) }
  /// Kind of segmentation asked for.
  public var gsoType: UInt8 { UInt8(truncatingIfNeeded: front >> 8) }
  /// Bytes of payload in each segment.
  public var gsoSize: UInt16 { UInt16(truncatingIfNeeded: front >> 32) }
  /// Where the checksum's range starts.
  public var checksumStart: UInt16 { UInt16(truncatingIfNeeded: front >> 48) }
  /// Where the checksum is put, from its start on.
  public var checksumOffset: UInt16 { UInt16(truncatingIfNeeded: back) }
  /// How many receive buffers the frame is in.
  public var buffers: UInt16 {
    get { UInt16(truncatingIfNeeded: back >> 16) }
    set { back = back & 0xFFFF | UInt32(newValue) << 16 }
  }

  /// Whether the header asks for nothing: no checksum, no segmentation. Other flags are ignored (§5.1.9.2.2).
  @inline(__always) var isPlain: Bool { front & (UInt64(Flag.needsChecksum) | 0xFF00) == 0 }

  enum Flag {
    static let needsChecksum: UInt8 = 1
  }

  enum Segmentation {
    static let tcp4: UInt8 = 1
    static let udpFragments: UInt8 = 3
    static let tcp6: UInt8 = 4
    static let udp: UInt8 = 5
    static let ecn: UInt8 = 0x80
  }
}

extension FrameHeader {
  /// Loads the header from 12 bytes of the driver's memory, in two loads.
  @inline(__always) init(copying bytes: UnsafeMutableRawPointer) {
    unsafe self.init(
      front: bytes.loadUnaligned(as: UInt64.self), back: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
  }

  /// Copies the header from the front of a chain, over however many buffers it is spread; nil when the chain has no byte
  /// behind it (VIRTIO 1.4 §5.1.9.2; a chain shorter than its header was CVE-2022-2132).
  init?(copying chain: DescriptorChain) {
    guard chain.readableLength > Self.length else { return nil }
    self.init()
    var copy = (front: UInt64(0), back: UInt32(0))
    unsafe withUnsafeMutableBytes(of: &copy.front) { _ = unsafe chain.copyBytes(from: 0, into: $0) }
    unsafe withUnsafeMutableBytes(of: &copy.back) { _ = unsafe chain.copyBytes(from: 8, into: $0) }
    self.init(front: copy.front, back: copy.back)
  }

  /// Stores the header at the front of a receive buffer's writable bytes, of which there are at least 12.
  func store(to chain: DescriptorChain) {
    let first = unsafe chain.writable[0]
    if first.length >= Self.length { return unsafe store(to: first.base) }
    var copy = self
    unsafe withUnsafeBytes(of: &copy.front) { _ = unsafe chain.write($0, at: 0) }
    unsafe withUnsafeBytes(of: &copy.back) { _ = unsafe chain.write($0, at: 8) }
  }

  /// Stores the header in 12 bytes.
  @inline(__always) func store(to bytes: UnsafeMutableRawPointer) {
    unsafe bytes.storeBytes(of: front, as: UInt64.self)
    unsafe bytes.storeBytes(of: back, toByteOffset: 8, as: UInt32.self)
  }
}

/// What driver and device have agreed on about frames: fixed from FEATURES_OK on.
public struct FrameFormat: Sendable, Hashable {
  /// A received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF).
  public let isMergeable: Bool
  /// The driver may leave checksums to the device (VIRTIO_NET_F_CSUM).
  let transmitChecksum: Bool
  /// Values of gso_type that the driver may use, as bits.
  let segmentations: UInt32
  let segmentationECN: Bool

  /// The format that follows from the negotiated features.
  public init(_ features: FeatureSet) {
    isMergeable = features.contains(.mergeableReceiveBuffers)
    transmitChecksum = features.contains(.checksum)
    var segmentations: UInt32 = 0
    if features.contains(.hostTSO4) { segmentations |= 1 << UInt32(FrameHeader.Segmentation.tcp4) }
    if features.contains(.hostTSO6) { segmentations |= 1 << UInt32(FrameHeader.Segmentation.tcp6) }
    if features.contains(.hostUFO) { segmentations |= 1 << UInt32(FrameHeader.Segmentation.udpFragments) }
    if features.contains(.hostUSO) { segmentations |= 1 << UInt32(FrameHeader.Segmentation.udp) }
    self.segmentations = segmentations
    segmentationECN = features.contains(.hostECN)
  }

  /// Length of the header in front of every frame, both ways, in bytes.
  public var headerLength: Int { FrameHeader.length }

  /// Judges the copied header of a frame of `frameLength` bytes from the driver; nil when it may be carried on.
  ///
  /// What was not negotiated is refused, and fields that lead outside the frame are (VIRTIO 1.4 §5.1.9.2.2;
  /// CVE-2024-11614 was a csum_start that nobody had compared with the frame). `hdr_len` is never used.
  public func objection(to header: FrameHeader, frameLength: Int) -> DropReason? {
    if header.isPlain { return nil }
    let needsChecksum = header.flags & FrameHeader.Flag.needsChecksum != 0
    if needsChecksum {
      guard transmitChecksum else { return .offloadNotNegotiated }
      // Sums of 16-bit values: no overflow.
      let end = Int(header.checksumStart) + Int(header.checksumOffset) + 2
      guard end <= frameLength else { return .invalidOffload }
    }
    guard header.gsoType != 0 else { return nil }
    let kind = header.gsoType & ~FrameHeader.Segmentation.ecn
    guard kind < 32, segmentations & (1 << UInt32(kind)) != 0 else { return .offloadNotNegotiated }
    guard header.gsoType & FrameHeader.Segmentation.ecn == 0 || segmentationECN else { return .offloadNotNegotiated }
    guard needsChecksum, header.gsoSize > 0 else { return .invalidOffload }
    return nil
  }
}
