public import PacketFormats

/// A pure answering machine: give it a received frame, and it rewrites the frame in place to the answer, or says what else to
/// do with it.
///
/// It answers ARP requests and neighbor solicitations for its addresses, ICMP echo requests of IPv4 and IPv6, and UDP datagrams
/// to its echo ports. It holds no connection, no cache and no reference to a device: one value per queue, used by one task at a
/// time, shares nothing with the others. It never speaks first: it joins no group by MLD (RFC 9777), probes no address of its
/// own before it uses it, and announces none.
///
///     var responder = try Responder(macAddress: mac, addresses: [network], udpEcho: .ports([7]))
///     switch responder.answer(&frame, length: received) {
///     case .reply(let length): // send the first `length` bytes of the frame
///     case .deliver:           // not the responder's: for whoever else listens
///     case .drop(let reason):  // forget the frame; it is counted
///     }
///
/// ## Rules
/// * A frame is looked at only if it is for the responder's station or a group of stations, and comes from another station.
/// * IPv4 packets must pass the checks of RFC 1122 §3.2.1 and be for one of the addresses; broadcasts and multicasts are never
///   answered, fragments are not put together.
/// * IPv6 packets must be for one of the addresses or for a group of them; only echo requests and solicitations are answered
///   there (RFC 4443 §4.2, RFC 4861 §7.2.4). Extension headers are walked and not echoed, fragments not put together. A UDP
///   datagram without a checksum is dropped.
/// * IPv4 options: a source route and malformed options are dropped; other options are accepted and not echoed: the answer has
///   a header of 20 bytes.
/// * Answers have a fresh header: DF set, identification 0 (RFC 6864 §4.1), a fresh time to live, the code point of the
///   request (RFC 1349 §5.1) without its ECN bits, which are not the answer's (RFC 3168 §6.1).
/// * The length of an answer follows from the lengths in the packet: Ethernet padding is cut, and so is what follows a UDP
///   datagram within its packet.
/// * A UDP datagram without a checksum is legal in IPv4; its echo has one (RFC 1122 §4.1.3.4).
///
/// Whatever the bytes say, nothing outside the first `length` bytes is read, nothing is written there but the end of a neighbor
/// advertisement, nothing is allocated, and the responder does not trap. A frame that is not answered is left as it was.
public struct Responder: Sendable {
  /// What to do with a frame.
  @frozen
  public enum Answer: Sendable, Hashable {
    /// The frame was rewritten to the answer: send its first `length` bytes back to where it came from. A device that does
    /// not pad frames to the 60 bytes of Ethernet must be given them padded.
    case reply(length: Int)
    /// The frame is well formed as far as it was looked at and not for this responder to answer: another EtherType, another
    /// protocol or port, an ARP or ICMP reply.
    case deliver
    /// The frame is to be forgotten.
    case drop(DropReason)
  }

  /// The address of the station.
  public let macAddress: MACAddress
  /// The IPv4 addresses of the host, each with its network; without any, IPv4 and ARP are delivered.
  public let addresses: [IPv4Network]
  /// The IPv6 addresses of the host, each with its network, its link-local address among them; without any, IPv6 is delivered.
  public let ipv6Addresses: [IPv6Network]
  /// The ports at which datagrams are echoed.
  public let udpEcho: UDPEchoPorts
  /// The time to live, or hop limit, of answers.
  public let timeToLive: UInt8
  /// What became of the frames so far.
  public internal(set) var statistics = ResponderStatistics()

  private let host: HostAddresses
  let ipv6Host: IPv6HostAddresses
  private let hasIPv4: Bool
  private let hasIPv6: Bool

  /// A responder for a station with these addresses.
  ///
  /// A host of IPv6 has a link-local address (RFC 4291 §2.8): unless there is one among `ipv6Addresses`, it is the one formed
  /// from `macAddress`. So a responder with IPv4 addresses alone is reached over IPv6 too, on the link.
  ///
  /// - Parameters:
  ///   - macAddress: The address of the station.
  ///   - addresses: IPv4 addresses, each with its network.
  ///   - ipv6Addresses: IPv6 addresses, each with its network; nil for a host without IPv6.
  ///   - udpEcho: The ports at which datagrams are echoed.
  ///   - timeToLive: The time to live, or hop limit, of answers.
  /// - Throws: `stationAddress` unless one station can have `macAddress`; `noAddress` if both lists are empty or missing;
  ///   `hostAddress` or `ipv6HostAddress` with the first address that no host can have: loopback, multicast, or its network's
  ///   broadcast address.
  public init(
    macAddress: MACAddress, addresses: [IPv4Network] = [], ipv6Addresses: [IPv6Network]? = [],
    udpEcho: UDPEchoPorts = .all, timeToLive: UInt8 = 64
  ) throws(ResponderConfigurationError) {
    guard macAddress.isUnicast else { throw .stationAddress(macAddress) }
    guard !addresses.isEmpty || ipv6Addresses?.isEmpty == false else { throw .noAddress }
    for network in addresses {
      guard network.address.isHost, !network.isBroadcast(network.address) else { throw .hostAddress(network) }
    }
    var networks = ipv6Addresses ?? []
    for network in networks {
      guard network.address.isHost else { throw .ipv6HostAddress(network) }
    }
    let configured = networks.first { $0.address.isLinkLocal }
    let linkLocal = configured ?? IPv6Network(linkLocal: macAddress)
    if ipv6Addresses != nil, configured == nil { networks.append(linkLocal) }
    self.macAddress = macAddress
    self.addresses = addresses
    self.ipv6Addresses = networks
    self.udpEcho = udpEcho
    self.timeToLive = timeToLive
    host = HostAddresses(addresses)
    ipv6Host = IPv6HostAddresses(
      linkLocal: linkLocal.address, primary: networks.first ?? linkLocal, others: networks.dropFirst())
    hasIPv4 = !addresses.isEmpty
    hasIPv6 = !networks.isEmpty
  }

  /// Answers the frame that fills all of `frame`. See ``answer(_:length:)``.
  public mutating func answer(_ frame: inout MutableRawSpan) -> Answer {
    answer(&frame, length: frame.byteCount)
  }

  /// Answers the frame in the first `length` bytes of a buffer, in place, and counts it.
  ///
  /// - Parameters:
  ///   - frame: The buffer, from the Ethernet header on, without a frame check sequence. It may be longer than the frame. An
  ///     answer is never longer than the frame it answers, but for a neighbor advertisement: it has 86 bytes, eight more than a
  ///     solicitation without options, and where the buffer ends before them it is not given (`noRoom`).
  ///   - length: Bytes received, padding included.
  public mutating func answer(_ frame: inout MutableRawSpan, length: Int) -> Answer {
    guard frame.holds(length, at: 0) else { return count(.drop(.truncated)) }
    let decision = decide(frame.bytes.extracting(first: length), room: frame.byteCount)
    if case .reply(let reply) = decision { write(reply, into: &frame) }
    return count(decision)
  }

  /// What will become of a frame, without touching it or counting anything.
  ///
  /// - Parameters:
  ///   - frame: The bytes received.
  ///   - room: Bytes of the buffer that the answer will be written to.
  @inline(__always)
  func decide(_ frame: RawSpan, room: Int) -> Decision {
    do throws(PacketFormatError) {
      let ethernet = try EthernetHeader(decoding: frame)
      guard ethernet.destination == macAddress || ethernet.destination.isGroup else { return .drop(.otherStation) }
      guard ethernet.source.isUnicast, ethernet.source != macAddress else { return .drop(.invalidSourceMAC) }
      if ethernet.etherType == .ipv4, hasIPv4 { return try decideIPv4(frame, ethernet) }
      if ethernet.etherType == .ipv6, hasIPv6 { return try decideIPv6(frame, room: room, ethernet) }
      if ethernet.etherType == .arp, hasIPv4 { return decideARP(frame) }
      return ethernet.etherType.isVLANTag ? .drop(.vlanTagged) : .deliver
    } catch {
      return .drop(DropReason(error))
    }
  }

  /// Counts what becomes of a frame.
  @inline(__always)
  mutating func count(_ decision: Decision) -> Answer {
    switch decision {
    case .reply(let reply):
      switch reply {
      case .arp: statistics.arpReplies &+= 1
      case .advertisement: statistics.neighborReplies &+= 1
      case .icmpEcho, .icmpv6Echo: statistics.icmpEchoReplies &+= 1
      case .udpEcho, .udpv6Echo: statistics.udpEchoReplies &+= 1
      }
      return .reply(length: reply.length)
    case .deliver:
      statistics.delivered &+= 1
      return .deliver
    case .drop(let reason):
      statistics.countDrop(reason)
      return .drop(reason)
    }
  }

  @inline(never)
  private func decideARP(_ frame: RawSpan) -> Decision {
    let judgement = ARPPacket.judge(frame, length: frame.byteCount, hardwareAddress: macAddress) { [host] in
      host.owns($0)
    }
    switch judgement {
    case .reply(let reply): return .reply(.arp(reply))
    case .other(.received), .other(.reply): return .deliver
    case .other(.malformed(let error)): return .drop(DropReason(error))
    case .other(.unknownOperation): return .drop(.arpUnknownOperation)
    case .other(.otherAddress): return .drop(.arpOtherAddress)
    case .other(.invalidSender): return .drop(.arpInvalidSender)
    case .other(.conflict): return .drop(.arpConflict)
    }
  }

  @inline(__always)
  private func decideIPv4(_ frame: RawSpan, _ ethernet: EthernetHeader) throws(PacketFormatError) -> Decision {
    let ip = try IPv4Header(decoding: frame, at: EthernetHeader.length)
    if ip.hasOptions { try IPv4Options.check(frame, at: EthernetHeader.length, header: ip) }
    guard !ip.isFragment else { throw PacketFormatError(.ipFragment) }
    guard host.owns(ip.destination) else {
      return .drop(refusal(of: ip.destination))
    }
    guard !ethernet.destination.isGroup else { return .drop(.ipGroupFrame) }
    guard ip.source.isHost, !host.owns(ip.source), !host.isBroadcast(ip.source) else { return .drop(.ipInvalidSource) }

    if ip.protocol == .udp {
      let start = EthernetHeader.length &+ ip.headerLength
      let udp = try UDPHeader(
        decoding: frame, at: start, available: ip.payloadLength, pseudoHeader: ip.pseudoHeader)
      if let refusal = refusal(of: udp) { return refusal }
      return .reply(.udpEcho(ethernet, ip, udp))
    }
    if ip.protocol == .icmpv4 { return try decideICMP(frame, ethernet, ip) }
    return .deliver
  }

  // Out of line, so that the way of a UDP datagram stays short.
  @inline(never)
  private func decideICMP(
    _ frame: RawSpan, _ ethernet: EthernetHeader, _ ip: IPv4Header
  ) throws(PacketFormatError) -> Decision {
    let message = try ICMPv4Message(
      decoding: frame, at: EthernetHeader.length &+ ip.headerLength, length: ip.payloadLength)
    guard message.kind == .echoRequest else { return .deliver }
    guard message.code == 0 else { return .drop(.icmpCode) }
    return .reply(.icmpEcho(ethernet, ip, message))
  }

  /// Why a packet to this address, which is not ours, is dropped.
  @inline(__always)
  private func refusal(of destination: IPv4Address) -> DropReason {
    if destination.isMulticast || destination.isLimitedBroadcast || host.isBroadcast(destination) {
      return .ipGroupDestination
    }
    return .ipOtherAddress
  }

  /// What becomes of a datagram that is not to be echoed, because of its ports; nothing if it is.
  @inline(__always)
  func refusal(of udp: UDPHeader) -> Decision? {
    guard udp.destinationPort != 0 else { return .drop(.udpPortZero) }
    guard udpEcho.contains(udp.destinationPort) else { return .deliver }
    guard udp.sourcePort != 0 else { return .drop(.udpPortZero) }
    guard !isAnsweringService(udp.sourcePort) else { return .drop(.udpAnsweringService) }
    return nil
  }

  @inline(__always)
  private func isAnsweringService(_ port: UInt16) -> Bool {
    // Bits 7, 13, 17, 19 and 37.
    port < 64 && (0x20_000A_2080 as UInt64) >> UInt64(port) & 1 != 0
  }
}
