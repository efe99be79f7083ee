/// A neighbor solicitation to be sent (RFC 4861 §4.3): "who has this address?"
@frozen
public struct NeighborSolicitation: Sendable, Hashable {
  /// Bytes of a frame with one that names its sender's station: 14 Ethernet, 40 IPv6, 24 of the message, 8 of the option.
  public static var frameLength: Int { @inlinable get { 86 } }

  /// The address that is asked for.
  public var target: IPv6Address
  /// Who asks; `::` for a host that finds out whether it may have `target` (RFC 4862 §5.4.2).
  public var source: IPv6Address
  /// The station that asks. A host without an address leaves it out of the message (§7.1.1).
  public var hardwareAddress: MACAddress

  /// A question for `target`.
  @inlinable
  public init(target: IPv6Address, source: IPv6Address, hardwareAddress: MACAddress) {
    self.target = target
    self.source = source
    self.hardwareAddress = hardwareAddress
  }

  /// Bytes of the frame: 86, or 78 without an address to speak from.
  @inlinable public var frameLength: Int {
    source.isUnspecified ? NeighborSolicitation.frameLength &- 8 : NeighborSolicitation.frameLength
  }

  /// Writes the whole frame.
  ///
  /// - Parameters:
  ///   - frame: where to write.
  ///   - neighbor: the one station to ask whether it is still there (§7.2.2); nil asks the group in which `target` listens.
  /// - Returns: the length of the frame.
  /// - Throws: `truncated` if it does not fit; then nothing is written.
  public func encodeFrame(
    into frame: inout MutableRawSpan, to neighbor: MACAddress? = nil
  ) throws(PacketFormatError) -> Int {
    guard frame.holds(frameLength, at: 0) else { throw .truncated(frameLength, at: 0, of: frame.byteCount) }
    let destination = neighbor == nil ? target.solicitedNode : target
    let start = EthernetHeader.length + IPv6Header.length
    EthernetHeader(
      destination: neighbor ?? destination.multicastMAC, source: hardwareAddress, etherType: .ipv6
    ).store(into: &frame)
    let ip = IPv6Header(
      source: source, destination: destination, nextHeader: .icmpv6, knownLength: frameLength - start,
      hopLimit: NeighborAdvertisement.hopLimit, trafficClass: 0)
    ip.store(into: &frame, at: EthernetHeader.length)
    frame.storeUInt32(0, inside: start + 4)
    frame.storeUInt64(target.high, inside: start + 8)
    frame.storeUInt64(target.low, inside: start + 16)
    // Option 1, source link-layer address, one unit of eight bytes.
    if !source.isUnspecified { frame.storeUInt64(0x0101 << 48 | hardwareAddress.rawValue, inside: start + 24) }
    ICMPv6Message.storeFront(
      .neighborSolicitation, into: &frame, at: start, length: frameLength - start,
      pseudoHeader: ip.pseudoHeader(for: .icmpv6))
    return frameLength
  }
}

extension NeighborAdvertisement {
  /// Bytes of a frame with one: 14 Ethernet, 40 IPv6, 32 of the message.
  public static var frameLength: Int { @inlinable get { 86 } }

  /// Writes the whole frame, from the target's own address.
  ///
  /// - Parameters:
  ///   - frame: where to write.
  ///   - destination: who has asked; nil tells all nodes of the link, and then ``isSolicited`` must be false (§7.1.2).
  ///   - neighbor: the station of who has asked; nil for all nodes.
  /// - Returns: the length of the frame.
  /// - Throws: `truncated` if it does not fit, `neighborFlags` for an answer to all nodes; then nothing is written.
  public func encodeFrame(
    into frame: inout MutableRawSpan, to destination: IPv6Address? = nil, at neighbor: MACAddress? = nil
  ) throws(PacketFormatError) -> Int {
    let length = NeighborAdvertisement.frameLength
    let receiver = destination ?? .allNodes
    guard frame.holds(length, at: 0) else { throw .truncated(length, at: 0, of: frame.byteCount) }
    guard !isSolicited || !receiver.isMulticast else { throw PacketFormatError(.neighborFlags, .ipv6(receiver)) }
    EthernetHeader(
      destination: neighbor ?? receiver.multicastMAC, source: hardwareAddress, etherType: .ipv6
    ).store(into: &frame)
    let ip = IPv6Header(
      source: target, destination: receiver, nextHeader: .icmpv6, knownLength: NeighborAdvertisement.length,
      hopLimit: NeighborAdvertisement.hopLimit, trafficClass: 0)
    ip.store(into: &frame, at: EthernetHeader.length)
    try encode(
      into: &frame, at: EthernetHeader.length + IPv6Header.length, pseudoHeader: ip.pseudoHeader(for: .icmpv6))
    return length
  }
}

extension ARPPacket {
  /// "Who has `target`?", from a host that has an address, or, with 0.0.0.0, from one that probes (RFC 5227 §2.1.1).
  @inlinable
  public static func request(
    for target: IPv4Address, from source: IPv4Address, hardwareAddress: MACAddress
  ) -> ARPPacket {
    ARPPacket(
      operation: .request, senderHardwareAddress: hardwareAddress, senderProtocolAddress: source,
      targetHardwareAddress: .zero, targetProtocolAddress: target)
  }

  /// Writes the whole frame, ``frameLength`` bytes: a request to all stations, anything else to the target's.
  ///
  /// - Parameters:
  ///   - frame: where to write.
  ///   - neighbor: another station to send it to, as one that is asked whether it is still there (RFC 1122 §2.3.2.1).
  /// - Returns: the length of the frame.
  /// - Throws: `truncated` if it does not fit; then nothing is written.
  public func encodeFrame(
    into frame: inout MutableRawSpan, to neighbor: MACAddress? = nil
  ) throws(PacketFormatError) -> Int {
    let length = ARPPacket.frameLength
    guard frame.holds(length, at: 0) else { throw .truncated(length, at: 0, of: frame.byteCount) }
    let destination = neighbor ?? (operation == .request ? .broadcast : targetHardwareAddress)
    EthernetHeader(destination: destination, source: senderHardwareAddress, etherType: .arp).store(into: &frame)
    try encode(into: &frame, at: EthernetHeader.length)
    return length
  }
}
