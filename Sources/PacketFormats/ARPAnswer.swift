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
    let outcome = judge(frame.bytes, length: length, hardwareAddress: hardwareAddress, owns: owns)
    guard case .reply(let reply) = outcome else { return outcome.answer }
    // A frame that could be judged holds all of it.
    reply.storeFrame(into: &frame)
    return .reply(length: frameLength)
  }

  /// What ``answer(_:length:hardwareAddress:owns:)`` will do about the frame, without touching it.
  @inlinable
  package static func judge(
    _ frame: RawSpan, length: Int, hardwareAddress: MACAddress, owns: (IPv4Address) -> Bool
  ) -> ARPJudgement {
    guard length >= frameLength else { return .other(.malformed(.truncated(frameLength, at: 0, of: length))) }
    do throws(PacketFormatError) {
      let header = try EthernetHeader(decoding: frame)
      guard header.etherType == .arp else { throw PacketFormatError(.otherProtocol, .etherType(header.etherType)) }
      let packet = try ARPPacket(decoding: frame, at: EthernetHeader.length)
      guard packet.operation == .request || packet.operation == .reply else {
        return .other(.unknownOperation)
      }
      let isProbe = packet.operation == .request && packet.senderProtocolAddress.isUnspecified
      guard packet.senderHardwareAddress.isUnicast, packet.senderHardwareAddress != hardwareAddress,
        packet.senderProtocolAddress.isHost || isProbe
      else { return .other(.invalidSender) }
      // Asked of every packet, whoever its target is: a conflicting announcement names itself as target.
      guard !owns(packet.senderProtocolAddress) else { return .other(.conflict) }
      guard owns(packet.targetProtocolAddress) else { return .other(.otherAddress) }
      guard packet.operation == .request else { return .other(.received(packet)) }
      return .reply(packet.reply(from: hardwareAddress))
    } catch {
      return .other(.malformed(error))
    }
  }

  /// Writes the frame of a reply where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable
  package func storeFrame(into frame: inout MutableRawSpan) {
    EthernetHeader(destination: targetHardwareAddress, source: senderHardwareAddress, etherType: .arp).store(
      into: &frame)
    store(into: &frame, at: EthernetHeader.length)
  }
}

/// What is to become of an ARP frame: the reply to be written, or what else ``ARPAnswer`` says of it.
@frozen
@usableFromInline
package enum ARPJudgement: Sendable {
  /// This reply is to be sent.
  case reply(ARPPacket)
  /// Nothing is.
  case other(ARPAnswer)

  /// What is said of a frame without a reply.
  @inlinable package var answer: ARPAnswer {
    switch self {
    case .reply: .reply(length: ARPPacket.frameLength)
    case .other(let answer): answer
    }
  }
}
