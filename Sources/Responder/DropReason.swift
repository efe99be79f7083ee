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

  /// A version other than 4 in an IPv4 frame (RFC 1122 §3.2.1.1), than 6 in an IPv6 frame (RFC 8200 §3).
  case ipVersion
  /// A header length below 20 bytes or beyond the frame (RFC 791 §3.1).
  case ipHeaderLength
  /// A total length below the header length or beyond the frame (RFC 791 §3.1); a payload length beyond it (RFC 8200 §3).
  case ipTotalLength
  /// A wrong header checksum (RFC 1122 §3.2.1.2).
  case ipHeaderChecksum
  /// A fragment: the responder does not reassemble (RFC 791 §3.2, RFC 8200 §4.5).
  case ipFragment
  /// A loose or strict source route (RFC 7126 §4.3, §4.4); a routing header with segments left (RFC 8200 §4.4).
  case ipSourceRoute
  /// Malformed options (RFC 791 §3.1, RFC 8200 §4.2).
  case ipOptions
  /// An unknown option of IPv6 that says to discard its packet (RFC 8200 §4.2).
  case ipUnknownOption
  /// An extension header of IPv6 that runs over its packet's end, or stands where it must not (RFC 8200 §4).
  case ipExtensionHeader
  /// A source that no other host can have: broadcast, multicast, reserved, "this network", loopback, unspecified,
  /// IPv4-mapped, or one of our own addresses (RFC 1122 §3.2.1.3, RFC 4291 §2.5 and §2.7).
  case ipInvalidSource
  /// A packet to another host.
  case ipOtherAddress
  /// A packet to a broadcast or multicast address: answering it would multiply it (RFC 1122 §3.2.2.6 allows to ignore such
  /// an echo request). Over IPv6: to a group that we are not in, or a datagram to one that we are in.
  case ipGroupDestination
  /// A packet to one host in a frame to a group of stations (RFC 1122 §3.3.6).
  case ipGroupFrame

  /// An ICMP message below eight bytes (RFC 792), neighbor discovery below 24 (RFC 4861 §7.1).
  case icmpLength
  /// A wrong ICMP checksum (RFC 792, RFC 4443 §2.3).
  case icmpChecksum
  /// An ICMP echo request with a code other than 0 (RFC 792, RFC 4443 §4.1), or neighbor discovery (RFC 4861 §7.1).
  case icmpCode

  /// Neighbor discovery that may come from another link: its hop limit is not 255 (RFC 4861 §7.1).
  case neighborHopLimit
  /// Neighbor discovery in a packet with a fragment header (RFC 6980 §5).
  case neighborFragment
  /// Neighbor discovery about a group of nodes (RFC 4861 §7.1).
  case neighborTarget
  /// Neighbor discovery with malformed options (RFC 4861 §4.6, §7.1).
  case neighborOptions
  /// A solicitation without a source that breaks the rules for such (RFC 4861 §7.1.1).
  case neighborSource
  /// An advertisement to a group that says it was asked for (RFC 4861 §7.1.2).
  case neighborFlags
  /// A solicitation of another host's address.
  case neighborOtherTarget
  /// A solicitation from an Ethernet address that no other station can have.
  case neighborHardwareAddress
  /// An advertisement from somebody who says that it has one of our addresses (RFC 4862 §5.4.4).
  case neighborConflict

  /// A UDP length below eight bytes or beyond the packet (RFC 768).
  case udpLength
  /// A UDP checksum that is there and wrong (RFC 768, RFC 1122 §4.1.3.4).
  case udpChecksum
  /// A datagram over IPv6 without a checksum (RFC 8200 §8.1).
  case udpNoChecksum
  /// A datagram to be echoed from or to port 0, where nobody listens (RFC 768).
  case udpPortZero
  /// A datagram to be echoed that comes from a service which answers everything itself, as this responder does: the two would
  /// never stop (CERT CA-1996-01). These are echo, daytime, quote of the day, chargen and time: ports 7, 13, 17, 19, 37.
  case udpAnsweringService

  /// A solicitation that would be answered, in a buffer that ends before the answer does.
  case noRoom

  init(_ error: PacketFormatError) {
    self =
      switch error.reason {
      case .truncated, .otherProtocol, .payloadTooLong, .unanswerable: .truncated
      case .vlanTagged, .vlanIdentifier: .vlanTagged
      case .arpAddressSpace: .arpAddressSpace
      case .ipVersion: .ipVersion
      case .ipHeaderLength: .ipHeaderLength
      case .ipTotalLength: .ipTotalLength
      case .ipHeaderChecksum: .ipHeaderChecksum
      case .ipFragment: .ipFragment
      case .ipSourceRoute: .ipSourceRoute
      case .ipOptions: .ipOptions
      case .ipUnknownOption: .ipUnknownOption
      case .ipExtensionHeader: .ipExtensionHeader
      case .icmpLength: .icmpLength
      case .icmpChecksum: .icmpChecksum
      case .icmpCode: .icmpCode
      case .neighborHopLimit: .neighborHopLimit
      case .neighborFragment: .neighborFragment
      case .neighborTarget: .neighborTarget
      case .neighborOptions: .neighborOptions
      case .neighborSource: .neighborSource
      case .neighborFlags: .neighborFlags
      case .udpLength: .udpLength
      case .udpChecksum: .udpChecksum
      }
  }
}
