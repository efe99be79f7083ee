/// Why bytes are not the packet they were taken for, or why a packet does not fit: the rule that is broken, and what was found
/// instead.
///
/// One flat list of reasons for all formats: a decoder stops at the first rule that is broken, and whoever counts needs one
/// table. It is thrown as a typed error and costs no allocation; the text is made when somebody asks for it.
///
///     do { … } catch where error.reason == .ipTotalLength { print(error) }
///     // ipTotalLength: 1500 bytes, where 46 are possible
@frozen
public struct PacketFormatError: Error, Sendable, Hashable {
  /// The rule that is broken.
  public let reason: Reason
  /// What was found where the rule says something else; `none` where there is nothing to show.
  public let found: Found

  /// An error of this reason.
  @inlinable
  public init(_ reason: Reason, _ found: Found = .none) {
    self.reason = reason
    self.found = found
  }

  /// A value that breaks a rule, as its field's type.
  @frozen
  public enum Found: Sendable, Hashable {
    /// Nothing to show.
    case none
    /// A number: a version, a type, a flag field, a port.
    case number(UInt64)
    /// A length in bytes, or the end of what was asked for, and how many bytes there are, or may be.
    case length(Int, limit: Int)
    /// A station.
    case station(MACAddress)
    /// A host of IPv4.
    case ipv4(IPv4Address)
    /// A host of IPv6.
    case ipv6(IPv6Address)
    /// What a frame says that it carries.
    case etherType(EtherType)
    /// What a packet says that it carries.
    case ipProtocol(IPProtocol)
  }

  /// The rules.
  public enum Reason: UInt8, Sendable, Hashable, CaseIterable {
    /// The bytes end before the header does; when encoding: the buffer is too small.
    case truncated
    /// A VLAN tag stands where a packet was expected (IEEE 802.1Q): take it off first, or more than two of them.
    case vlanTagged
    /// A VLAN identifier above 4094, or a priority above 7 (IEEE 802.1Q §9.6).
    case vlanIdentifier
    /// The EtherType or protocol number names another protocol than the one decoded.
    case otherProtocol
    /// ARP for other than Ethernet and IPv4 (RFC 826: hardware type 1, protocol 0x0800, lengths 6 and 4).
    case arpAddressSpace
    /// The version of the Internet Protocol is not the one decoded (RFC 1122 §3.2.1.1, RFC 8200 §3).
    case ipVersion
    /// The header length is below 20 bytes or beyond the packet (RFC 791 §3.1, IHL).
    case ipHeaderLength
    /// The total length is shorter than the header or longer than what was received (RFC 791 §3.1); the payload length of
    /// IPv6 is longer than what was received (RFC 8200 §3).
    case ipTotalLength
    /// The header checksum is wrong (RFC 1122 §3.2.1.2).
    case ipHeaderChecksum
    /// A fragment (RFC 791 §3.2, RFC 8200 §4.5): these formats do not reassemble.
    case ipFragment
    /// The options contain a source route (RFC 791 §3.1, RFC 7126 §4.3 and §4.4); a routing header has segments left, which
    /// only a router would follow (RFC 8200 §4.4, RFC 5095).
    case ipSourceRoute
    /// The options run over their end or have an impossible length (RFC 791 §3.1, RFC 8200 §4.2).
    case ipOptions
    /// An option of IPv6 is not known and says that its packet is then to be discarded (RFC 8200 §4.2).
    case ipUnknownOption
    /// An extension header of IPv6 runs over the end of the packet, or stands where it must not (RFC 8200 §4).
    case ipExtensionHeader
    /// An ICMP message shorter than its header (RFC 792), or than its type needs (RFC 4861 §7.1).
    case icmpLength
    /// The ICMP checksum is wrong (RFC 792, RFC 4443 §2.3).
    case icmpChecksum
    /// An ICMP message with a code that its type does not have (RFC 4861 §7.1).
    case icmpCode
    /// A neighbor discovery message that may have come from another link: its hop limit is not 255 (RFC 4861 §7.1).
    case neighborHopLimit
    /// A neighbor discovery message in a packet with a fragment header (RFC 6980 §5).
    case neighborFragment
    /// A neighbor discovery message about a group of nodes (RFC 4861 §7.1).
    case neighborTarget
    /// A neighbor discovery option that is of length zero, runs over the end of the message, or holds an address that is none
    /// of Ethernet (RFC 4861 §4.6, RFC 2464 §6).
    case neighborOptions
    /// A neighbor solicitation without a source address that is not to a solicited-node group, or has a source link-layer
    /// address all the same (RFC 4861 §7.1.1).
    case neighborSource
    /// A neighbor advertisement to a group of nodes that says it was asked for (RFC 4861 §7.1.2).
    case neighborFlags
    /// The UDP length is below 8 bytes or beyond the IP payload (RFC 768).
    case udpLength
    /// The UDP checksum is there and wrong (RFC 768, RFC 1122 §4.1.3.4).
    case udpChecksum
    /// The source of a frame, packet or datagram is one that nobody can be answered at: a group of stations, an address that
    /// no host has (RFC 1122 §3.2.1.3), or port zero (RFC 768). Decoders do not throw it: who answers, asks.
    case unanswerable
    /// The payload is longer than the length fields can say.
    case payloadTooLong
  }
}

extension PacketFormatError: CustomStringConvertible {
  /// One line: the reason, and what was found.
  public var description: String {
    switch found {
    case .none: "\(reason)"
    case .number(let number): "\(reason): \(number)"
    case .length(let length, let limit): "\(reason): \(length) bytes, where \(limit) are possible"
    case .station(let address): "\(reason): \(address)"
    case .ipv4(let address): "\(reason): \(address)"
    case .ipv6(let address): "\(reason): \(address)"
    case .etherType(let type): "\(reason): \(type)"
    case .ipProtocol(let proto): "\(reason): \(proto)"
    }
  }
}

extension PacketFormatError {
  /// The bytes end before `count` of them from `offset` on.
  @inlinable
  package static func truncated(_ count: Int, at offset: Int, of limit: Int) -> PacketFormatError {
    // The end, where there is one: the arguments may be anything.
    let (end, overflow) = offset.addingReportingOverflow(count)
    return PacketFormatError(.truncated, .length(overflow ? .max : end, limit: limit))
  }

  /// A payload that a length field cannot say.
  @inlinable
  package static func payloadTooLong(_ count: Int, limit: Int) -> PacketFormatError {
    PacketFormatError(.payloadTooLong, .length(count, limit: limit))
  }
}
