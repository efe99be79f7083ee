internal import PacketFormats

/// The virtual network of the host UDP back-end: which datagram is which frame.
///
/// A gateway stands on the device's link. Behind it, each host that has sent a datagram has an address of its own, so that
/// the device sees ordinary UDP from ordinary addresses and answers them as it would on any network. All frames that come
/// here are private copies: what was checked is what is used. A value without I/O, touched by its owner only.
struct UDPGateway {
  /// Who has which address.
  struct Addresses {
    /// The gateway's station address.
    var gatewayMAC: MACAddress
    /// The gateway's address on the device's link.
    var gateway: IPv4Address
    /// The device's station address.
    var deviceMAC: MACAddress
    /// The device's address, to which datagrams go.
    var device: IPv4Address
    /// The port that datagrams go to, and that answers come from.
    var devicePort: UInt16
    /// Where the senders' addresses are: the first sender is the address after this one.
    var firstSender: IPv4Address
  }

  /// What a frame from the device amounts to.
  enum Answer: Equatable {
    /// A datagram for a host: these bytes of the frame.
    case datagram(to: SenderTable.Key, payload: Range<Int>)
    /// The frame was rewritten to a reply for the device, so many bytes long.
    case reply(length: Int)
    /// Nothing to carry on.
    case drop(DropReason)
  }

  var addresses: Addresses
  private var senders: SenderTable

  init(addresses: Addresses, senders: SenderTable) {
    self.addresses = addresses
    self.senders = senders
  }

  /// Builds the frame of a datagram whose payload already lies at `UDPFrame.headerLength`.
  ///
  /// - Returns: the frame's length, or nil when there is no room for another sender.
  mutating func frame(
    from sender: SenderTable.Key, payloadLength: Int, in frame: inout MutableRawSpan, now: UInt64
  ) -> Int? {
    guard let number = senders.number(of: sender, now: now) else { return nil }
    let flow = UDPFrame(
      sourceMAC: addresses.gatewayMAC, destinationMAC: addresses.deviceMAC, source: address(of: number),
      destination: addresses.device, sourcePort: sender.port, destinationPort: addresses.devicePort)
    return try? flow.encode(into: &frame, payloadLength: payloadLength)
  }

  /// Judges a frame of the device, which is the first `length` bytes of `frame`.
  mutating func answer(_ frame: inout MutableRawSpan, length: Int, now: UInt64) -> Answer {
    guard length <= frame.byteCount else { return .drop(.malformedFrame) }
    let header: EthernetHeader
    do throws(PacketFormatError) { header = try EthernetHeader(decoding: frame.bytes.extracting(0..<length)) } catch {
      return .drop(.malformedFrame)
    }
    guard header.destination == addresses.gatewayMAC || header.destination.isBroadcast else { return .drop(.notForUs) }
    if header.etherType == .arp { return answerARP(&frame, length: length) }
    guard header.destination == addresses.gatewayMAC else { return .drop(.notForUs) }
    do throws(PacketFormatError) {
      let (flow, payload) = try UDPFrame.decode(frame.bytes.extracting(0..<length))
      try flow.checkAnswerable()
      return carry(flow, payload, now: now)
    } catch {
      let isOther = error.reason == .otherProtocol || error.reason == .vlanTagged
      return .drop(isOther ? .unsupportedProtocol : .malformedFrame)
    }
  }

  private mutating func carry(_ flow: UDPFrame, _ payload: Range<Int>, now: UInt64) -> Answer {
    // Only the device's own address and port: the host's socket has no other name to send from.
    guard flow.source == addresses.device, flow.sourcePort == addresses.devicePort else { return .drop(.notForUs) }
    guard let number = number(of: flow.destination),
      let sender = senders.sender(number, port: flow.destinationPort, now: now)
    else { return .drop(.unknownPeer) }
    return .datagram(to: sender, payload: payload)
  }

  private func answerARP(_ frame: inout MutableRawSpan, length: Int) -> Answer {
    let gateway = addresses.gateway
    let outcome = ARPPacket.answer(&frame, length: length, hardwareAddress: addresses.gatewayMAC) { $0 == gateway }
    switch outcome {
    case .reply(let length): return .reply(length: length)
    case .malformed, .invalidSender, .unknownOperation: return .drop(.malformedFrame)
    case .otherAddress, .conflict, .received: return .drop(.notForUs)
    }
  }

  // MARK: Addresses of senders

  private func address(of number: Int) -> IPv4Address {
    // At most 65534 senders: the configuration has made sure that their addresses are in one network.
    IPv4Address(rawValue: addresses.firstSender.rawValue &+ 1 &+ UInt32(truncatingIfNeeded: number))
  }

  private func number(of address: IPv4Address) -> Int? {
    guard address.rawValue > addresses.firstSender.rawValue else { return nil }
    return Int(address.rawValue &- addresses.firstSender.rawValue &- 1)
  }
}
