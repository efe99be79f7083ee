/// The front of an Ethernet frame with up to two VLAN tags: who, to whom, in which virtual network, and what begins where.
@frozen
public struct TaggedHeader: Sendable, Hashable {
  /// The station, or group of stations, the frame is for.
  public let destination: MACAddress
  /// The station that sent the frame.
  public let source: MACAddress
  /// The first tag: the only one, or a provider's.
  public let outerTag: VLANTag?
  /// The second tag: a customer's inside a provider's.
  public let innerTag: VLANTag?
  /// What follows.
  public let etherType: EtherType
  /// Where it begins, counted from the start of the frame: 14, 18 or 22.
  public let length: Int

  /// Reads the header at the start of a frame.
  ///
  /// - Throws: `truncated`; `vlanTagged` where a third tag follows two.
  @inlinable
  public init(decoding bytes: RawSpan) throws(PacketFormatError) {
    let ethernet = try EthernetHeader(decoding: bytes)
    destination = ethernet.destination
    source = ethernet.source
    var type = ethernet.etherType
    var end = EthernetHeader.length
    var tags: (VLANTag?, VLANTag?) = (nil, nil)
    while type.isVLANTag {
      guard tags.1 == nil else { throw PacketFormatError(.vlanTagged, .etherType(type)) }
      guard bytes.holds(VLANTag.length, at: end) else { throw .truncated(VLANTag.length, at: end, of: bytes.byteCount) }
      // The first half of a tag was the type of what came before it: each is read once.
      let word = bytes.loadUInt32(inside: end)
      let tag = VLANTag(etherType: type, control: UInt16(truncatingIfNeeded: word >> 16))
      tags = tags.0 == nil ? (tag, nil) : (tags.0, tag)
      type = EtherType(rawValue: UInt16(truncatingIfNeeded: word))
      end &+= VLANTag.length
    }
    outerTag = tags.0
    innerTag = tags.1
    etherType = type
    length = end
  }

  /// Writes addresses, tags and type in this order, ``length`` bytes. Throws `truncated` if they do not fit; then nothing is
  /// written.
  @inlinable
  public func encode(into bytes: inout MutableRawSpan) throws(PacketFormatError) {
    guard bytes.holds(length, at: 0) else { throw .truncated(length, at: 0, of: bytes.byteCount) }
    var offset = EthernetHeader.length
    EthernetHeader(destination: destination, source: source, etherType: outerTag?.etherType ?? etherType)
      .store(into: &bytes)
    if let outerTag {
      let next = innerTag?.etherType ?? etherType
      bytes.storeUInt32(UInt32(outerTag.control) << 16 | UInt32(next.rawValue), inside: offset)
      offset &+= VLANTag.length
    }
    if let innerTag {
      bytes.storeUInt32(UInt32(innerTag.control) << 16 | UInt32(etherType.rawValue), inside: offset)
    }
  }

  /// The header of an answer from `station`, on the same virtual network.
  @usableFromInline
  func answered(from station: MACAddress) -> TaggedHeader {
    TaggedHeader(
      destination: source, source: station, outerTag: outerTag, innerTag: innerTag, etherType: etherType, length: length
    )
  }

  private init(
    destination: MACAddress, source: MACAddress, outerTag: VLANTag?, innerTag: VLANTag?, etherType: EtherType,
    length: Int
  ) {
    self.destination = destination
    self.source = source
    self.outerTag = outerTag
    self.innerTag = innerTag
    self.etherType = etherType
    self.length = length
  }
}
