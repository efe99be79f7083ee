/// What became of an ARP frame that was looked at for the owner of some addresses.
///
/// The owner may be a host with one address or a gateway with many: ``ARPPacket/answer(_:length:hardwareAddress:owns:)``
/// asks a closure whether an address is its own.
@frozen
public enum ARPAnswer: Sendable, Hashable {
  /// The frame was rewritten in place to the reply, which is this many bytes long and is to be sent.
  case reply(length: Int)
  /// A reply for one of the owner's addresses: the sender's addresses may be learned from it.
  case received(ARPPacket)
  /// No ARP for IPv4 on Ethernet, or cut short.
  case malformed(PacketFormatError)
  /// Neither a request nor a reply.
  case unknownOperation
  /// The target is not one of the owner's addresses.
  case otherAddress
  /// The sender has an address that no other host can have: a group or zero hardware address or the owner's own, or a
  /// loopback, multicast, reserved or "this network" protocol address other than the 0.0.0.0 of a probe.
  case invalidSender
  /// Somebody else says that it has one of the owner's addresses (RFC 5227 §2.4).
  case conflict
}

extension ARPPacket {
  /// Bytes of an Ethernet frame with an ARP packet, without padding.
  public static var frameLength: Int { @inlinable get { 42 } }

  /// Answers the ARP frame in the first `length` bytes of `frame`, in place, for the owner of some addresses.
  ///
  /// The rules are those of RFC 826, Packet Reception, without its cache, and of RFC 5227: a probe, whose sender address is
  /// 0.0.0.0, is answered as well, which is how an owner defends its address. The reply goes to the sender that the packet
  /// names (`ar$sha`). For all other outcomes the frame is left as it was. The Ethernet header must have been found to be
  /// for this owner; its type is checked here.
  ///
  /// - Parameters:
  ///   - frame: A buffer of at least 42 bytes that starts with the Ethernet header.
  ///   - length: How many bytes of the buffer were received, padding included.
  ///   - hardwareAddress: The owner's address on the link.
  ///   - owns: Whether an address is the owner's. Called twice at most.
  @inlinable
  public static func answer(
    _ frame: inout MutableRawSpan, length: Int, hardwareAddress: MACAddress, owns: (IPv4Address) -> Bool
  ) -> ARPAnswer {
    guard length >= frameLength else { return .malformed(.truncated) }
    do throws(PacketFormatError) {
      let header = try EthernetHeader(decoding: frame.bytes)
      guard header.etherType == .arp else { throw .otherProtocol }
      let packet = try ARPPacket(decoding: frame.bytes, at: EthernetHeader.length)
      guard packet.operation == .request || packet.operation == .reply else { return .unknownOperation }
      let isProbe = packet.operation == .request && packet.senderProtocolAddress.isUnspecified
      guard packet.senderHardwareAddress.isUnicast, packet.senderHardwareAddress != hardwareAddress,
        packet.senderProtocolAddress.isHost || isProbe
      else { return .invalidSender }
      // Asked of every packet, whoever its target is: a conflicting announcement names itself as target.
      guard !owns(packet.senderProtocolAddress) else { return .conflict }
      guard owns(packet.targetProtocolAddress) else { return .otherAddress }
      guard packet.operation == .request else { return .received(packet) }
      let answer = EthernetHeader(
        destination: packet.senderHardwareAddress, source: hardwareAddress, etherType: .arp)
      try answer.encode(into: &frame)
      try packet.reply(from: hardwareAddress).encode(into: &frame, at: EthernetHeader.length)
      return .reply(length: frameLength)
    } catch {
      return .malformed(error)
    }
  }
}
