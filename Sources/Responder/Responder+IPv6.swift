import PacketFormats

// IPv6: what `Responder.swift` does for IPv4 and ARP. Neighbor discovery is a part of ICMP here.
extension Responder {
  // Out of line, so that the way of an IPv4 packet stays short.
  @inline(never)
  func decideIPv6(_ frame: RawSpan, room: Int, _ ethernet: EthernetHeader) throws(PacketFormatError) -> Decision {
    let ip = try IPv6Header(decoding: frame, at: EthernetHeader.length)
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
    let payload = try IPv6Payload(decoding: frame, at: EthernetHeader.length, header: ip)

    if payload.protocol == .icmpv6 { return try decideICMPv6(frame, room: room, ethernet, ip, payload) }
    guard isFromHost else { return .drop(.ipInvalidSource) }
    guard payload.protocol == .udp else { return .deliver }
    guard !isToGroup else { return .drop(.ipGroupDestination) }
    let udp = try UDPHeader(
      decoding: frame, at: payload.offset, available: payload.length, pseudoHeader: ip.pseudoHeader(for: .udp))
    // Nothing else covers the addresses, so a datagram without a checksum is none (RFC 8200 §8.1).
    guard udp.checksum != 0 else { return .drop(.udpNoChecksum) }
    if let refusal = refusal(of: udp) { return refusal }
    return .reply(.udpv6Echo(ethernet, ip, payload, udp))
  }

  @inline(never)
  private func decideICMPv6(
    _ frame: RawSpan, room: Int, _ ethernet: EthernetHeader, _ ip: IPv6Header, _ payload: IPv6Payload
  ) throws(PacketFormatError) -> Decision {
    let message = try ICMPv6Message(
      decoding: frame, at: payload.offset, length: payload.length, pseudoHeader: ip.pseudoHeader(for: .icmpv6))
    switch message.kind {
    case .neighborSolicitation, .neighborAdvertisement:
      let neighbor = try NeighborMessage(decoding: frame, header: ip, payload: payload, message: message)
      return decide(about: neighbor, room: room, ethernet, ip)
    case _ where ip.source.isUnspecified:
      return .drop(.ipInvalidSource)
    case .echoRequest:
      guard message.code == 0 else { return .drop(.icmpCode) }
      // To a group too: RFC 4443 §4.2 says that a node should, from a unicast address of its own. That is how all nodes of a
      // link are found, and each answers one packet with one that is no longer.
      let source = ip.destination.isMulticast ? ipv6Host.source(for: ip.source) : ip.destination
      return .reply(.icmpv6Echo(ethernet, ip, payload, message, from: source))
    default:
      return .deliver
    }
  }

  /// RFC 4861 §7.2.4: a solicitation for one of our addresses is answered with where we are; one without a source, by which a
  /// host finds out whether it may have the address (RFC 4862 §5.4.3), to all nodes, which defends it.
  private func decide(
    about neighbor: NeighborMessage, room: Int, _ ethernet: EthernetHeader, _ ip: IPv6Header
  ) -> Decision {
    guard ipv6Host.owns(neighbor.target) else {
      return neighbor.isAdvertisement ? .deliver : .drop(.neighborOtherTarget)
    }
    // Our own never come back to us: their Ethernet source is ours.
    guard !neighbor.isAdvertisement else { return .drop(.neighborConflict) }
    let asker = neighbor.hardwareAddress ?? ethernet.source
    guard asker.isUnicast, asker != macAddress else { return .drop(.neighborHardwareAddress) }
    guard room >= NeighborAdvertisement.frameLength else { return .drop(.noRoom) }

    let isProbe = ip.source.isUnspecified
    return .reply(
      .advertisement(
        NeighborAdvertisement(target: neighbor.target, hardwareAddress: macAddress, isSolicited: !isProbe),
        to: isProbe ? .allNodes : ip.source, at: isProbe ? IPv6Address.allNodes.multicastMAC : asker))
  }
}
