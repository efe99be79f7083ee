/// Why a net header was refused.
@frozen
public enum NetHeaderError: Error, Hashable, Sendable {
  /// The checksum field does not lie in the frame.
  case checksumOutOfBounds(start: UInt16, offset: UInt16, frameLength: Int)
  /// A partial checksum was not negotiated.
  case checksumNotNegotiated
  /// This segmentation was not negotiated, or is none.
  case segmentation(UInt8)
  /// Segments of no size.
  case segmentSizeZero
  /// Segmentation without a partial checksum (VIRTIO 1.4 §5.1.9.2.1, §5.1.9.4.1).
  case segmentationWithoutChecksum
  /// `num_buffers` is zero, more than the ring holds, or more than one without MRG_RXBUF.
  case bufferCount(UInt16)
}

/// What a checked header says of its frame: every offset lies inside, every kind was negotiated.
@frozen
public struct NetOffload: Hashable, Sendable {
  /// The state of the transport checksum.
  @frozen
  public enum Checksum: Hashable, Sendable {
    /// In the frame, and not verified by anybody.
    case unverified
    /// Verified by the device.
    case verified
    /// To be completed: from `start` on, the result goes to `start` + `offset`, both inside the frame.
    case partial(start: UInt16, offset: UInt16)
  }

  /// How the frame is to be cut.
  @frozen
  public struct Segments: Hashable, Sendable {
    /// The kind, without its ECN bit.
    public var kind: VirtioNetHeader.Segmentation
    /// Bytes of payload in each segment; not zero.
    public var size: UInt16
    /// The segments carry ECN.
    public var hasECN: Bool

    /// Segments of `kind`, `size` bytes each.
    @inlinable
    public init(kind: VirtioNetHeader.Segmentation, size: UInt16, hasECN: Bool) {
      self.kind = kind
      self.size = size
      self.hasECN = hasECN
    }
  }

  /// The transport checksum.
  public var checksum: Checksum
  /// How to cut the frame; nil when it is not to be cut.
  public var segments: Segments?

  /// An offload of these parts.
  @inlinable
  public init(checksum: Checksum = .unverified, segments: Segments? = nil) {
    self.checksum = checksum
    self.segments = segments
  }
}

extension VirtioNetHeader {
  /// How many buffers the received frame fills: 1 to `queueSize` with MRG_RXBUF, 1 without.
  ///
  /// Without MRG_RXBUF a device must write 1 (§5.1.9.4.1); zero is taken for it, for vhost-net left the field alone until
  /// Linux 6.14. Anything else is `.bufferCount`.
  ///
  /// - Throws: `.bufferCount`.
  @inlinable
  public func bufferCount(mergeable: Bool, queueSize: Int) throws(NetHeaderError) -> Int {
    if mergeable {
      guard numBuffers > 0, Int(numBuffers) <= queueSize else { throw .bufferCount(numBuffers) }
      return Int(numBuffers)
    }
    guard numBuffers <= 1 else { throw .bufferCount(numBuffers) }
    return 1
  }

  /// What a driver may rely on in the header of a received frame of `frameLength` bytes, header not counted (§5.1.9.4).
  ///
  /// Unknown flags, and those of features not negotiated, are ignored; `hdr_len` is not looked at. Throws when a checksum
  /// field is outside the frame, or a segmentation was not negotiated or is incomplete.
  @inlinable
  public func receiveOffload(frameLength: Int, features: FeatureSet) throws(NetHeaderError) -> NetOffload {
    if isPlain { return NetOffload() }
    let isCoalesced = flags.contains(.receiveSegmentCoalescing) && features.contains(.rscExt)
    let hasPartial = flags.contains(.needsChecksum) && features.contains(.guestCsum)
    var offload = NetOffload()
    if hasPartial, !isCoalesced {
      offload.checksum = try partialChecksum(frameLength: frameLength)
    } else if flags.contains(.dataValid), features.contains(.guestCsum) {
      offload.checksum = .verified
    }
    offload.segments = try segments(
      hasChecksum: hasPartial, features: features, tcp4: .guestTSO4, tcp6: .guestTSO6, ecn: .guestECN,
      fragments: .guestUFO, datagrams: [.guestUSO4, .guestUSO6])
    return offload
  }

  /// What a device may do with a frame of `frameLength` bytes that a driver transmits, header not counted (§5.1.9.2.2).
  ///
  /// Throws when the checksum field is outside the frame (CVE-2024-11614 was a lack of this), or something was asked for
  /// that was not negotiated or is incomplete. Unknown flags are ignored, as is DATA_VALID; `hdr_len` is not looked at.
  @inlinable
  public func transmitOffload(frameLength: Int, features: FeatureSet) throws(NetHeaderError) -> NetOffload {
    if isPlain { return NetOffload() }
    let hasPartial = flags.contains(.needsChecksum)
    var offload = NetOffload()
    if hasPartial {
      guard features.contains(.csum) else { throw .checksumNotNegotiated }
      offload.checksum = try partialChecksum(frameLength: frameLength)
    }
    offload.segments = try segments(
      hasChecksum: hasPartial, features: features, tcp4: .hostTSO4, tcp6: .hostTSO6, ecn: .hostECN,
      fragments: .hostUFO, datagrams: .hostUSO)
    return offload
  }

  /// The header of a frame to transmit: an offload as a driver may ask for it (§5.1.9.2.1).
  ///
  /// `num_buffers` is zero and DATA_VALID is never set; `headerLength` is a hint. Throws what a device would refuse.
  public init(
    transmitting offload: NetOffload, headerLength: UInt16, frameLength: Int, features: FeatureSet
  ) throws(NetHeaderError) {
    self.init()
    if case .partial(let start, let offset) = offload.checksum {
      flags = .needsChecksum
      checksumStart = start
      checksumOffset = offset
    }
    if let segments = offload.segments {
      segmentation = Segmentation(rawValue: segments.kind.rawValue | (segments.hasECN ? Segmentation.ecnBit : 0))
      segmentSize = segments.size
      self.headerLength = headerLength
    }
    _ = try transmitOffload(frameLength: frameLength, features: features)
  }

  @usableFromInline
  func partialChecksum(frameLength: Int) throws(NetHeaderError) -> NetOffload.Checksum {
    // Three 16-bit numbers at most: no overflow.
    guard Int(checksumStart) + Int(checksumOffset) + 2 <= frameLength else {
      throw .checksumOutOfBounds(start: checksumStart, offset: checksumOffset, frameLength: frameLength)
    }
    return .partial(start: checksumStart, offset: checksumOffset)
  }

  /// The segmentation, checked against the features of one direction.
  @usableFromInline
  func segments(
    hasChecksum: Bool, features: FeatureSet, tcp4: FeatureSet, tcp6: FeatureSet, ecn: FeatureSet,
    fragments: FeatureSet, datagrams: FeatureSet
  ) throws(NetHeaderError) -> NetOffload.Segments? {
    guard segmentation != .none else { return nil }
    let kind = segmentation.withoutECN
    let isAllowed: Bool
    switch kind {
    case .tcp4: isAllowed = features.contains(tcp4)
    case .tcp6: isAllowed = features.contains(tcp6)
    case .udpFragments: isAllowed = features.contains(fragments) && !segmentation.hasECN
    // Receive has a feature for each address family: one is enough, the frame tells which it is.
    case .udpSegments: isAllowed = !features.isDisjoint(with: datagrams) && !segmentation.hasECN
    default: isAllowed = false
    }
    guard isAllowed, !segmentation.hasECN || features.contains(ecn) else { throw .segmentation(segmentation.rawValue) }
    guard segmentSize > 0 else { throw .segmentSizeZero }
    guard hasChecksum else { throw .segmentationWithoutChecksum }
    return NetOffload.Segments(kind: kind, size: segmentSize, hasECN: segmentation.hasECN)
  }
}
