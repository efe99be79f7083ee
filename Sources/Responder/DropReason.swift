import PacketFormats

/// Why a ``Responder`` dropped a frame. The numbers are the rows of ``ResponderStatistics``.
public enum DropReason: UInt8, Sendable, Hashable, CaseIterable {
  /// The frame ends before a header that it announces does, or the length given is not inside the buffer.
  case truncated
  /// The frame carries a VLAN tag (IEEE 802.1Q).
  case vlanTagged
  /// The frame is for another station of the link.
  case otherStation
  /// The frame comes from a group address, from zero, or from this responder's own address.
  case invalidSourceMAC

  /// ARP for other than Ethernet and IPv4 (RFC 826).
  case arpAddressSpace
  /// ARP that is neither request nor reply (RFC 826).
  case arpUnknownOperation
  /// ARP about another host's address.
  case arpOtherAddress
  /// ARP from a sender address that no other host can have.
  case arpInvalidSender
  /// ARP from somebody who says that it has one of our addresses (RFC 5227 §2.4).
  case arpConflict

  /// A version other than 4 in an IPv4 frame (RFC 1122 §3.2.1.1).
  case ipVersion
  /// A header length below 20 bytes or beyond the frame (RFC 791 §3.1).
  case ipHeaderLength
  /// A total length below the header length or beyond the frame (RFC 791 §3.1).
  case ipTotalLength
  /// A wrong header checksum (RFC 1122 §3.2.1.2).
  case ipHeaderChecksum
  /// A fragment: the responder does not reassemble (RFC 791 §3.2).
  case ipFragment
  /// A loose or strict source route (RFC 7126 §4.3, §4.4).
  case ipSourceRoute
  /// Malformed options (RFC 791 §3.1).
  case ipOptions
  /// A source that no other host can have: broadcast, multicast, reserved, "this network", loopback, or one of our own
  /// addresses (RFC 1122 §3.2.1.3).
  case ipInvalidSource
  /// A packet to another host.
  case ipOtherAddress
  /// A packet to a broadcast or multicast address: answering it would multiply it (RFC 1122 §3.2.2.6 allows to ignore such
  /// an echo request).
  case ipGroupDestination
  /// A packet to one host in a frame to a group of stations (RFC 1122 §3.3.6).
  case ipGroupFrame

  /// An ICMP message below eight bytes (RFC 792).
  case icmpLength
  /// A wrong ICMP checksum (RFC 792).
  case icmpChecksum
  /// An ICMP echo request with a code other than 0 (RFC 792).
  case icmpCode

  /// A UDP length below eight bytes or beyond the packet (RFC 768).
  case udpLength
  /// A UDP checksum that is there and wrong (RFC 768, RFC 1122 §4.1.3.4).
  case udpChecksum
  /// A datagram to be echoed from or to port 0, where nobody listens (RFC 768).
  case udpPortZero
  /// A datagram to be echoed that comes from a service which answers everything itself, as this responder does: the two would
  /// never stop (CERT CA-1996-01). These are echo, daytime, quote of the day, chargen and time: ports 7, 13, 17, 19, 37.
  case udpAnsweringService

  init(_ error: PacketFormatError) {
    self =
      switch error {
      case .truncated, .otherProtocol, .payloadTooLong, .unanswerable: .truncated
      case .vlanTagged: .vlanTagged
      case .arpAddressSpace: .arpAddressSpace
      case .ipVersion: .ipVersion
      case .ipHeaderLength: .ipHeaderLength
      case .ipTotalLength: .ipTotalLength
      case .ipHeaderChecksum: .ipHeaderChecksum
      case .ipFragment: .ipFragment
      case .ipSourceRoute: .ipSourceRoute
      case .ipOptions: .ipOptions
      case .icmpLength: .icmpLength
      case .icmpChecksum: .icmpChecksum
      case .udpLength: .udpLength
      case .udpChecksum: .udpChecksum
      }
  }
}
