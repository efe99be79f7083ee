import PacketFormats

/// What is to become of a frame, decided by looking at it and before anything is written.
///
/// It is made of values that were copied out of the frame and checked. So a frame that somebody else holds, or that is not to be
/// answered, is never written to; and a device that changes the bytes meanwhile changes nothing that was decided.
enum Decision: Sendable {
  /// The frame is to be rewritten to this answer.
  case reply(Reply)
  /// Well formed, and for somebody else.
  case deliver
  /// To be forgotten.
  case drop(DropReason)
}

/// An answer to be written over the frame that it answers: the headers of the question, and what else it takes.
enum Reply: Sendable {
  case arp(ARPPacket)
  case udpEcho(EthernetHeader, IPv4Header, UDPHeader)
  case icmpEcho(EthernetHeader, IPv4Header, ICMPv4Message)
  case udpv6Echo(EthernetHeader, IPv6Header, IPv6Payload, UDPHeader)
  case icmpv6Echo(EthernetHeader, IPv6Header, IPv6Payload, ICMPv6Message, from: IPv6Address)
  case advertisement(NeighborAdvertisement, to: IPv6Address, at: MACAddress)

  // Where the payload of an answer starts: behind an Ethernet and an IP header without options and extension headers.
  static var ipv4Payload: Int { EthernetHeader.length &+ IPv4Header.minimumLength }
  static var ipv6Payload: Int { EthernetHeader.length &+ IPv6Header.length }

  /// Bytes of the answer's frame. Only an advertisement may be longer than its question, by the eight bytes of the option that
  /// it must have (RFC 4861 §4.4) and the question need not have.
  var length: Int {
    switch self {
    case .arp: ARPPacket.frameLength
    case .udpEcho(_, _, let udp): Reply.ipv4Payload &+ udp.datagramLength
    case .icmpEcho(_, _, let message): Reply.ipv4Payload &+ message.length
    case .udpv6Echo(_, _, _, let udp): Reply.ipv6Payload &+ udp.datagramLength
    case .icmpv6Echo(_, _, _, let message, _): Reply.ipv6Payload &+ message.length
    case .advertisement: NeighborAdvertisement.frameLength
    }
  }
}

extension Responder {
  /// Writes the answer over its question. It fits: an answer is no longer than what it answers, but for the advertisement, for
  /// which there was found to be room.
  @inline(__always)
  func write(_ reply: Reply, into frame: inout MutableRawSpan) {
    switch reply {
    case .udpEcho(let ethernet, let ip, let udp):
      let header = storeHeaders(into: &frame, ethernet, answering: ip, length: udp.datagramLength)
      if udp.checksum != 0 {
        // It was verified, and an exchange of addresses and ports does not change a sum.
        udp.reversed.store(into: &frame, at: Reply.ipv4Payload)
      } else {
        udp.reversed.store(into: &frame, at: Reply.ipv4Payload, pseudoHeader: header.pseudoHeader)
      }
    default: writeOther(reply, into: &frame)
    }
  }

  // Out of line, so that the way of a UDP datagram stays short.
  @inline(never)
  private func writeOther(_ reply: Reply, into frame: inout MutableRawSpan) {
    switch reply {
    case .udpEcho: break
    case .arp(let packet): packet.storeFrame(into: &frame)
    case .icmpEcho(let ethernet, let ip, let message):
      _ = storeHeaders(into: &frame, ethernet, answering: ip, length: message.length)
      message.storeEchoReply(into: &frame, at: Reply.ipv4Payload)
    case .udpv6Echo(let ethernet, let ip, let payload, let udp):
      _ = storeHeaders(
        into: &frame, ethernet, answering: ip, from: ip.destination, payload, length: udp.datagramLength)
      // The checksum was verified, and an exchange of addresses and ports does not change a sum.
      udp.reversed.store(into: &frame, at: Reply.ipv6Payload)
    case .icmpv6Echo(let ethernet, let ip, let payload, let message, let source):
      let header = storeHeaders(into: &frame, ethernet, answering: ip, from: source, payload, length: message.length)
      message.storeEchoReply(into: &frame, at: Reply.ipv6Payload, pseudoHeader: header.pseudoHeader(for: .icmpv6))
    case .advertisement(let advertisement, let destination, let station):
      let header = IPv6Header(
        source: advertisement.target, destination: destination, nextHeader: .icmpv6,
        knownLength: NeighborAdvertisement.length, hopLimit: NeighborAdvertisement.hopLimit, trafficClass: 0)
      EthernetHeader(destination: station, source: macAddress, etherType: .ipv6).store(into: &frame)
      header.store(into: &frame, at: EthernetHeader.length)
      advertisement.store(into: &frame, at: Reply.ipv6Payload, pseudoHeader: header.pseudoHeader(for: .icmpv6))
    }
  }

  /// Writes the Ethernet and IPv4 headers of the answer to `request`, in front of `length` bytes of its payload, which move
  /// forward to make up for options. They fit, because those of the request did.
  @inline(__always)
  private func storeHeaders(
    into frame: inout MutableRawSpan, _ ethernet: EthernetHeader, answering request: IPv4Header, length: Int
  ) -> IPv4Header {
    if request.hasOptions {
      frame.moveForward(
        from: EthernetHeader.length &+ request.headerLength, to: Reply.ipv4Payload, count: length)
    }
    let header = request.answer(payloadLength: length, timeToLive: timeToLive)
    EthernetHeader(destination: ethernet.source, source: macAddress, etherType: .ipv4).store(into: &frame)
    header.store(into: &frame, at: EthernetHeader.length)
    return header
  }

  /// Writes the Ethernet and IPv6 headers of the answer to `request`, in front of `length` bytes of its payload, which move
  /// forward to make up for extension headers. They fit, because those of the request did.
  ///
  /// The answer takes over the code point, without the ECN bits, as that of IPv4 does, and labels no flow (RFC 6437 §3).
  private func storeHeaders(
    into frame: inout MutableRawSpan, _ ethernet: EthernetHeader, answering request: IPv6Header,
    from source: IPv6Address, _ payload: IPv6Payload, length: Int
  ) -> IPv6Header {
    frame.moveForward(from: payload.offset, to: Reply.ipv6Payload, count: length)
    let header = IPv6Header(
      source: source, destination: request.source, nextHeader: payload.protocol, knownLength: length,
      hopLimit: timeToLive, trafficClass: request.trafficClass & 0xFC)
    EthernetHeader(destination: ethernet.source, source: macAddress, etherType: .ipv6).store(into: &frame)
    header.store(into: &frame, at: EthernetHeader.length)
    return header
  }
}
