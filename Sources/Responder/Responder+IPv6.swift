import PacketFormats

// IPv6: what `Responder.swift` does for IPv4 and ARP. Neighbor discovery is a part of ICMP here.
extension Responder {
  // Where the payload of an answer starts: behind an Ethernet and an IPv6 header.
  private static var replyPayload: Int { EthernetHeader.length &+ IPv6Header.length }
  /// Bytes of a frame with a neighbor advertisement: of all answers only this one may be longer than its question, by the
  /// eight bytes of the option that it must have (RFC 4861 §4.4) and the question need not have.
  static var advertisementLength: Int { replyPayload &+ NeighborAdvertisement.length }

  // Out of line, so that the way of an IPv4 packet stays short.
  @inline(never)
  mutating func respondToIPv6(
    _ frame: inout MutableRawSpan, length: Int, _ ethernet: EthernetHeader
  ) throws(PacketFormatError) -> Answer {
    let ip = try IPv6Header(decoding: frame.bytes.extracting(first: length), at: EthernetHeader.length)
    // Extension headers are for the destination to look at (RFC 8200 §4): first whether that is us.
    let isToGroup = ip.destination.isMulticast
    if isToGroup {
      guard ipv6Host.isMember(of: ip.destination) else { return .drop(.ipGroupDestination) }
    } else {
      guard ipv6Host.owns(ip.destination) else { return .drop(.ipOtherAddress) }
      guard !ethernet.destination.isGroup else { return .drop(.ipGroupFrame) }
    }
    let isFromHost = ip.source.isHost && !ipv6Host.owns(ip.source)
    guard isFromHost || ip.source.isUnspecified else { return .drop(.ipInvalidSource) }
    let payload = try IPv6Payload(
      decoding: frame.bytes.extracting(first: length), at: EthernetHeader.length, header: ip)

    if payload.protocol == .icmpv6 {
      return try respondToICMPv6(&frame, length: length, ethernet, ip, payload)
    }
    guard isFromHost else { return .drop(.ipInvalidSource) }
    guard payload.protocol == .udp else { return .deliver }
    guard !isToGroup else { return .drop(.ipGroupDestination) }
    let udp = try UDPHeader(
      decoding: frame.bytes.extracting(first: length), at: payload.offset, available: payload.length,
      pseudoHeader: ip.pseudoHeader(for: .udp))
    // Nothing else covers the addresses, so a datagram without a checksum is none (RFC 8200 §8.1).
    guard udp.checksum != 0 else { return .drop(.udpNoChecksum) }
    if let refusal = refusal(of: udp) { return refusal }
    storeHeaders(
      into: &frame, ethernet, answering: ip, from: ip.destination, payload, length: udp.datagramLength)
    // The checksum was verified, and an exchange of addresses and ports does not change a sum.
    udp.reversed.store(into: &frame, at: Responder.replyPayload)
    statistics.udpEchoReplies &+= 1
    return .reply(length: Responder.replyPayload &+ udp.datagramLength)
  }

  @inline(never)
  private mutating func respondToICMPv6(
    _ frame: inout MutableRawSpan, length: Int, _ ethernet: EthernetHeader, _ ip: IPv6Header, _ payload: IPv6Payload
  ) throws(PacketFormatError) -> Answer {
    let message = try ICMPv6Message(
      decoding: frame.bytes.extracting(first: length), at: payload.offset, length: payload.length,
      pseudoHeader: ip.pseudoHeader(for: .icmpv6))
    switch message.kind {
    case .neighborSolicitation, .neighborAdvertisement:
      let neighbor = try NeighborMessage(
        decoding: frame.bytes.extracting(first: length), header: ip, payload: payload, message: message)
      return try respond(to: neighbor, in: &frame, ethernet, ip)
    case _ where ip.source.isUnspecified:
      return .drop(.ipInvalidSource)
    case .echoRequest:
      guard message.code == 0 else { return .drop(.icmpCode) }
      // To a group too: RFC 4443 §4.2 says that a node should, from a unicast address of its own. That is how all nodes of a
      // link are found, and each answers one packet with one that is no longer.
      let source = ip.destination.isMulticast ? ipv6Host.source(for: ip.source) : ip.destination
      let header = storeHeaders(into: &frame, ethernet, answering: ip, from: source, payload, length: message.length)
      message.storeEchoReply(
        into: &frame, at: Responder.replyPayload, pseudoHeader: header.pseudoHeader(for: .icmpv6))
      statistics.icmpEchoReplies &+= 1
      return .reply(length: Responder.replyPayload &+ message.length)
    default:
      return .deliver
    }
  }

  /// RFC 4861 §7.2.4: a solicitation for one of our addresses is answered with where we are; one without a source, by which a
  /// host finds out whether it may have the address (RFC 4862 §5.4.3), to all nodes, which defends it.
  private mutating func respond(
    to neighbor: NeighborMessage, in frame: inout MutableRawSpan, _ ethernet: EthernetHeader, _ ip: IPv6Header
  ) throws(PacketFormatError) -> Answer {
    guard ipv6Host.owns(neighbor.target) else {
      return neighbor.isAdvertisement ? .deliver : .drop(.neighborOtherTarget)
    }
    // Our own never come back to us: their Ethernet source is ours.
    guard !neighbor.isAdvertisement else { return .drop(.neighborConflict) }
    let asker = neighbor.hardwareAddress ?? ethernet.source
    guard asker.isUnicast, asker != macAddress else { return .drop(.neighborHardwareAddress) }
    guard frame.holds(Responder.advertisementLength, at: 0) else { return .drop(.noRoom) }

    let isProbe = ip.source.isUnspecified
    let header = IPv6Header(
      source: neighbor.target, destination: isProbe ? .allNodes : ip.source, nextHeader: .icmpv6,
      knownLength: NeighborAdvertisement.length, hopLimit: NeighborAdvertisement.hopLimit, trafficClass: 0)
    let destination = isProbe ? IPv6Address.allNodes.multicastMAC : asker
    EthernetHeader(destination: destination, source: macAddress, etherType: .ipv6).store(into: &frame)
    header.store(into: &frame, at: EthernetHeader.length)
    try NeighborAdvertisement(target: neighbor.target, hardwareAddress: macAddress, isSolicited: !isProbe)
      .encode(into: &frame, at: Responder.replyPayload, pseudoHeader: header.pseudoHeader(for: .icmpv6))
    statistics.neighborReplies &+= 1
    return .reply(length: Responder.advertisementLength)
  }

  /// Writes the Ethernet and IPv6 headers of the answer to `request`, in front of `length` bytes of its payload, which move
  /// forward to make up for extension headers. They fit, because those of the request did.
  ///
  /// The answer takes over the code point, without the ECN bits, as that of IPv4 does, and labels no flow (RFC 6437 §3).
  @discardableResult @inline(__always)
  private func storeHeaders(
    into frame: inout MutableRawSpan, _ ethernet: EthernetHeader, answering request: IPv6Header,
    from source: IPv6Address, _ payload: IPv6Payload, length: Int
  ) -> IPv6Header {
    frame.moveForward(from: payload.offset, to: Responder.replyPayload, count: length)
    let header = IPv6Header(
      source: source, destination: request.source, nextHeader: payload.protocol, knownLength: length,
      hopLimit: timeToLive, trafficClass: request.trafficClass & 0xFC)
    EthernetHeader(destination: ethernet.source, source: macAddress, etherType: .ipv6).store(into: &frame)
    header.store(into: &frame, at: EthernetHeader.length)
    return header
  }
}
