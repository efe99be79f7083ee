internal import PacketFormats

/// The link between a device and an interface of layer 3: two stations, the device and a router that has every other address.
///
/// The kernel's side has packets and no stations, and the driver's side has frames. What is put in front of a packet comes from
/// the router, and whoever asks for an address is told that the router has it: ARP and neighbor discovery end here. All bytes that
/// come here are private copies. A value without I/O.
struct TunLink {
  /// The router's station: locally administered, and nobody else's on a link with two stations.
  static let router = MACAddress(0x02, 0x00, 0x5E, 0x00, 0x00, 0x01)
  /// Bytes behind the Ethernet header of the longest answer: a neighbor advertisement.
  static let longestAnswer = IPv6Header.length + NeighborAdvertisement.length

  /// What a frame of the device amounts to.
  enum Judgement: Equatable {
    /// A packet for the kernel, behind the Ethernet header.
    case packet
    /// The frame was rewritten to an answer for the device, so many bytes long.
    case answer(length: Int)
    /// Nothing to carry on.
    case drop(DropReason)
  }

  /// The device's station.
  var device: MACAddress

  /// Judges a frame of the device, which is the first `length` bytes of `frame`; an answer may need more of them.
  func judge(_ frame: inout MutableRawSpan, length: Int) -> Judgement {
    guard length <= frame.byteCount, let header = try? EthernetHeader(decoding: frame.bytes.extracting(first: length))
    else {
      return .drop(.malformedFrame)
    }
    guard header.destination == Self.router || header.destination.isGroup else { return .drop(.notForUs) }
    switch header.etherType {
    case .ipv4: return length > EthernetHeader.length ? .packet : .drop(.malformedFrame)
    case .ipv6:
      guard length > EthernetHeader.length else { return .drop(.malformedFrame) }
      return answerSolicitation(&frame, length: length) ?? .packet
    case .arp: return answerARP(&frame, length: length)
    default: return .drop(.unsupportedProtocol)
    }
  }

  /// Puts the header in front of a packet of the kernel, which begins behind its place; why not, if it is neither IPv4 nor IPv6.
  func frame(_ frame: inout MutableRawSpan) -> DropReason? {
    let type: EtherType
    switch (try? frame.loadUInt8(at: EthernetHeader.length)).map({ $0 >> 4 }) {
    case 4?: type = .ipv4
    case 6?: type = .ipv6
    default: return .unsupportedProtocol
    }
    let header = EthernetHeader(destination: device, source: Self.router, etherType: type)
    return (try? header.encode(into: &frame)) == nil ? .malformedFrame : nil
  }

  /// The router has every address but the device's own: a host that asks whether somebody has the one that it wants (RFC 5227
  /// §2.1.1), or tells that it has it (§2.3), gets no answer.
  private func answerARP(_ frame: inout MutableRawSpan, length: Int) -> Judgement {
    guard let question = try? ARPPacket(decoding: frame.bytes.extracting(first: length), at: EthernetHeader.length),
      question.senderHardwareAddress.isUnicast
    else { return .drop(.malformedFrame) }
    guard question.operation == .request, question.senderProtocolAddress != .unspecified,
      question.targetProtocolAddress != question.senderProtocolAddress,
      let count = try? question.reply(from: Self.router).encodeFrame(into: &frame, to: nil)
    else { return .drop(.notForUs) }
    return .answer(length: count)
  }

  /// Nil for a packet that is no neighbor solicitation. That of a host which asks whether it may have an address (RFC 4862 §5.4.3)
  /// is nobody's to answer.
  private func answerSolicitation(_ frame: inout MutableRawSpan, length: Int) -> Judgement? {
    switch Solicitation(frame.bytes.extracting(first: length)) {
    case .absent: return nil
    case .malformed: return .drop(.malformedFrame)
    case .question(let target, let source, let station):
      let answer = NeighborAdvertisement(target: target, hardwareAddress: Self.router, isSolicited: true)
      guard !source.isUnspecified, let count = try? answer.encodeFrame(into: &frame, to: source, at: station) else {
        return .drop(.notForUs)
      }
      return .answer(length: count)
    }
  }

  /// What a frame of IPv6 asks of its neighbors.
  private enum Solicitation {
    case absent
    case malformed
    case question(target: IPv6Address, source: IPv6Address, station: MACAddress)

    init(_ bytes: RawSpan) {
      self = .absent
      guard let ethernet = try? EthernetHeader(decoding: bytes),
        let ip = try? IPv6Header(decoding: bytes, at: EthernetHeader.length),
        let payload = try? IPv6Payload(decoding: bytes, at: EthernetHeader.length, header: ip),
        payload.protocol == .icmpv6,
        let message = try? ICMPv6Message(
          decoding: bytes, at: payload.offset, length: payload.length, pseudoHeader: ip.pseudoHeader(for: .icmpv6)),
        message.kind == .neighborSolicitation
      else { return }
      guard let asked = try? NeighborMessage(decoding: bytes, header: ip, payload: payload, message: message) else {
        self = .malformed
        return
      }
      self = .question(
        target: asked.target, source: ip.source, station: asked.hardwareAddress ?? ethernet.source)
    }
  }
}
