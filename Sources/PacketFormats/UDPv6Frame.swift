/// A UDP datagram in an IPv6 packet in an Ethernet frame: who speaks to whom, without the payload.
///
/// What ``UDPFrame`` is for IPv4. The payload stays where it is, ``headerLength`` bytes into the frame unless there are extension
/// headers, and the 62 bytes in front of it are built or taken apart in place:
///
///     let (flow, payload) = try UDPv6Frame.decode(frame)         // from the link: send the bytes in `payload` on
///     let length = try flow.reversed.encode(into: &buffer, payloadLength: n)  // to the link: n bytes received at 62
///
/// Decoding makes every check that does not depend on who the receiver is: lengths, version, extension headers, no fragment, and
/// the checksum, which a datagram over IPv6 must have (RFC 8200 §8.1). Whether the sender can be answered is another question,
/// which ``checkAnswerable()`` asks.
@frozen
public struct UDPv6Frame: Sendable, Hashable {
  /// Bytes in front of the payload in a frame built here: 14 Ethernet, 40 IPv6, 8 UDP.
  public static var headerLength: Int { @inlinable get { 62 } }
  /// The longest payload of a UDP datagram over IPv6; what a link carries unfragmented is its MTU less 48 bytes.
  public static var maximumPayloadLength: Int { @inlinable get { 65527 } }

  /// The sending station.
  public var sourceMAC: MACAddress
  /// The receiving station or group of stations.
  public var destinationMAC: MACAddress
  /// The sending host.
  public var source: IPv6Address
  /// The receiving host or group of hosts.
  public var destination: IPv6Address
  /// The sending port.
  public var sourcePort: UInt16
  /// The receiving port.
  public var destinationPort: UInt16

  /// A flow between these addresses and ports.
  @inlinable
  public init(
    sourceMAC: MACAddress, destinationMAC: MACAddress, source: IPv6Address, destination: IPv6Address,
    sourcePort: UInt16, destinationPort: UInt16
  ) {
    self.sourceMAC = sourceMAC
    self.destinationMAC = destinationMAC
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
  }

  /// The flow of the answers: all three pairs exchanged.
  @inlinable public var reversed: UDPv6Frame {
    UDPv6Frame(
      sourceMAC: destinationMAC, destinationMAC: sourceMAC, source: destination, destination: source,
      sourcePort: destinationPort, destinationPort: sourcePort)
  }

  /// Makes sure that an answer to the sender can reach it and nobody else.
  ///
  /// - Throws: `unanswerable` with the value that keeps it from that: a station that is a group or zero, an address that no
  ///   host has (RFC 4291 §2.5), or port zero.
  @inlinable
  public func checkAnswerable() throws(PacketFormatError) {
    guard sourceMAC.isUnicast else { throw PacketFormatError(.unanswerable, .station(sourceMAC)) }
    guard source.isHost else { throw PacketFormatError(.unanswerable, .ipv6(source)) }
    guard sourcePort != 0 else { throw PacketFormatError(.unanswerable, .number(0)) }
  }

  /// Takes a received frame apart, from its Ethernet header to the end of the bytes received.
  ///
  /// - Returns: The flow, and where in `frame` the payload is: always inside, without padding, possibly empty.
  /// - Throws: `vlanTagged`, or `otherProtocol` for a frame that is not IPv6 and UDP; what ``IPv6Header``, ``IPv6Payload`` and
  ///   ``UDPHeader`` throw; `udpChecksum` for a datagram without one.
  @inlinable
  public static func decode(_ frame: RawSpan) throws(PacketFormatError) -> (flow: UDPv6Frame, payload: Range<Int>) {
    let ethernet = try EthernetHeader(decoding: frame)
    guard !ethernet.etherType.isVLANTag else { throw PacketFormatError(.vlanTagged, .etherType(ethernet.etherType)) }
    guard ethernet.etherType == .ipv6 else { throw PacketFormatError(.otherProtocol, .etherType(ethernet.etherType)) }
    let ip = try IPv6Header(decoding: frame, at: EthernetHeader.length)
    let payload = try IPv6Payload(decoding: frame, at: EthernetHeader.length, header: ip)
    guard payload.protocol == .udp else { throw PacketFormatError(.otherProtocol, .ipProtocol(payload.protocol)) }
    let udp = try UDPHeader(
      decoding: frame, at: payload.offset, available: payload.length, pseudoHeader: ip.pseudoHeader(for: .udp))
    guard udp.checksum != 0 else { throw PacketFormatError(.udpChecksum, .number(0)) }
    let flow = UDPv6Frame(
      sourceMAC: ethernet.source, destinationMAC: ethernet.destination, source: ip.source,
      destination: ip.destination, sourcePort: udp.sourcePort, destinationPort: udp.destinationPort)
    let first = payload.offset &+ UDPHeader.length
    return (flow, first..<(first &+ udp.payloadLength))
  }

  /// Builds the 62 bytes of headers in front of a payload that is already in the frame, from byte 62 on, with the checksum.
  ///
  /// Nothing is written if an error is thrown.
  ///
  /// - Returns: The length of the frame, without padding.
  /// - Throws: `truncated` if headers and payload do not fit into `frame`; `payloadTooLong` above 65527 bytes.
  @inlinable
  public func encode(
    into frame: inout MutableRawSpan, payloadLength: Int, hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Int {
    let udp = try UDPHeader(sourcePort: sourcePort, destinationPort: destinationPort, payloadLength: payloadLength)
    let length = UDPv6Frame.headerLength &+ payloadLength
    guard frame.holds(length, at: 0) else { throw .truncated(length, at: 0, of: frame.byteCount) }
    let ip = IPv6Header(
      source: source, destination: destination, nextHeader: .udp, knownLength: UDPHeader.length &+ payloadLength,
      hopLimit: hopLimit, trafficClass: 0)
    EthernetHeader(destination: destinationMAC, source: sourceMAC, etherType: .ipv6).store(into: &frame)
    ip.store(into: &frame, at: EthernetHeader.length)
    udp.store(
      into: &frame, at: EthernetHeader.length &+ IPv6Header.length, pseudoHeader: ip.pseudoHeader(for: .udp))
    return length
  }
}

extension UDPv6Frame: CustomStringConvertible {
  /// `02:00:00:00:00:02 > 02:00:00:00:00:01, fd00::2.5000 > fd00::1.7`.
  public var description: String {
    "\(sourceMAC) > \(destinationMAC), \(source).\(sourcePort) > \(destination).\(destinationPort)"
  }
}
