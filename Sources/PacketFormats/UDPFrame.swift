/// A UDP datagram in an IPv4 packet in an Ethernet frame: who speaks to whom, without the payload.
///
/// This is what a gateway needs that carries datagrams between a link and a host's sockets. The payload stays where it is,
/// ``headerLength`` bytes into the frame, and the 42 bytes in front of it are built or taken apart in place:
///
///     let (flow, payload) = try UDPFrame.decode(frame)         // from the link: send the bytes in `payload` on
///     let length = try flow.reversed.encode(into: &buffer, payloadLength: n)  // to the link: n bytes received at 42
///
/// Decoding makes every check that does not depend on who the receiver is: lengths, versions, both checksums, no fragment, no
/// source route. Whether the sender can be answered is another question: a host that asks for an address sends from 0.0.0.0
/// (RFC 2131 §4.1), and a datagram from port zero expects no answer. ``checkAnswerable()`` asks it.
@frozen
public struct UDPFrame: Sendable, Hashable {
  /// Bytes in front of the payload in a frame built here: 14 Ethernet, 20 IPv4, 8 UDP.
  public static var headerLength: Int { @inlinable get { 42 } }
  /// The longest payload of a UDP datagram over IPv4; what a link carries unfragmented is its MTU less 28 bytes.
  public static var maximumPayloadLength: Int { @inlinable get { 65507 } }

  /// The sending station.
  public var sourceMAC: MACAddress
  /// The receiving station or group of stations.
  public var destinationMAC: MACAddress
  /// The sending host.
  public var source: IPv4Address
  /// The receiving host or group of hosts.
  public var destination: IPv4Address
  /// The sending port.
  public var sourcePort: UInt16
  /// The receiving port.
  public var destinationPort: UInt16

  /// A flow between these addresses and ports.
  @inlinable
  public init(
    sourceMAC: MACAddress, destinationMAC: MACAddress, source: IPv4Address, destination: IPv4Address,
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
  @inlinable public var reversed: UDPFrame {
    UDPFrame(
      sourceMAC: destinationMAC, destinationMAC: sourceMAC, source: destination, destination: source,
      sourcePort: destinationPort, destinationPort: sourcePort)
  }

  /// Makes sure that an answer to the sender can reach it and nobody else.
  ///
  /// - Throws: `unanswerable` with the value that keeps it from that: a station that is a group or zero, an address that no
  ///   host has (RFC 1122 §3.2.1.3), or port zero.
  @inlinable
  public func checkAnswerable() throws(PacketFormatError) {
    guard sourceMAC.isUnicast else { throw PacketFormatError(.unanswerable, .station(sourceMAC)) }
    guard source.isHost else { throw PacketFormatError(.unanswerable, .ipv4(source)) }
    guard sourcePort != 0 else { throw PacketFormatError(.unanswerable, .number(0)) }
  }

  /// Takes a received frame apart, from its Ethernet header to the end of the bytes received.
  ///
  /// - Returns: The flow, and where in `frame` the payload is: always inside, without padding, possibly empty.
  /// - Throws: `vlanTagged`, or `otherProtocol` for a frame that is not IPv4 and UDP; what ``IPv4Header``, ``IPv4Options`` and
  ///   ``UDPHeader`` throw; `ipFragment`.
  @inlinable
  public static func decode(_ frame: RawSpan) throws(PacketFormatError) -> (flow: UDPFrame, payload: Range<Int>) {
    let ethernet = try EthernetHeader(decoding: frame)
    guard !ethernet.etherType.isVLANTag else { throw PacketFormatError(.vlanTagged, .etherType(ethernet.etherType)) }
    guard ethernet.etherType == .ipv4 else { throw PacketFormatError(.otherProtocol, .etherType(ethernet.etherType)) }
    let ip = try IPv4Header(decoding: frame, at: EthernetHeader.length)
    if ip.hasOptions { try IPv4Options.check(frame, at: EthernetHeader.length, header: ip) }
    guard !ip.isFragment else { throw PacketFormatError(.ipFragment) }
    guard ip.protocol == .udp else { throw PacketFormatError(.otherProtocol, .ipProtocol(ip.protocol)) }
    let start = EthernetHeader.length &+ ip.headerLength
    let udp = try UDPHeader(
      decoding: frame, at: start, available: ip.payloadLength, pseudoHeader: ip.pseudoHeader)
    let flow = UDPFrame(
      sourceMAC: ethernet.source, destinationMAC: ethernet.destination, source: ip.source,
      destination: ip.destination, sourcePort: udp.sourcePort, destinationPort: udp.destinationPort)
    let first = start &+ UDPHeader.length
    return (flow, first..<(first &+ udp.payloadLength))
  }

  /// Builds the 42 bytes of headers in front of a payload that is already in the frame, from byte 42 on, with both checksums.
  ///
  /// The packet is one that is never fragmented (DF set). Nothing is written if an error is thrown.
  ///
  /// - Returns: The length of the frame, without padding.
  /// - Throws: `truncated` if headers and payload do not fit into `frame`; `payloadTooLong` above 65507 bytes.
  @inlinable
  public func encode(
    into frame: inout MutableRawSpan, payloadLength: Int, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Int {
    guard payloadLength >= 0, payloadLength <= UDPFrame.maximumPayloadLength else {
      throw .payloadTooLong(payloadLength, limit: UDPFrame.maximumPayloadLength)
    }
    let length = UDPFrame.headerLength &+ payloadLength
    guard frame.holds(length, at: 0) else { throw .truncated(length, at: 0, of: frame.byteCount) }
    let ethernet = EthernetHeader(destination: destinationMAC, source: sourceMAC, etherType: .ipv4)
    let ip = try IPv4Header(
      source: source, destination: destination, protocol: .udp, payloadLength: UDPHeader.length &+ payloadLength,
      timeToLive: timeToLive)
    let udp = try UDPHeader(
      sourcePort: sourcePort, destinationPort: destinationPort, payloadLength: payloadLength)
    // The frame holds all of it, as asked above.
    ethernet.store(into: &frame)
    ip.store(into: &frame, at: EthernetHeader.length)
    udp.store(
      into: &frame, at: EthernetHeader.length &+ IPv4Header.minimumLength, pseudoHeader: ip.pseudoHeader)
    return length
  }
}
