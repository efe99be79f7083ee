/// What an Internet packet carries: the protocol number of IPv4 and the next header of IPv6 (one IANA registry).
@frozen
public struct IPProtocol: RawRepresentable, Sendable, Hashable {
  /// The number on the wire.
  public let rawValue: UInt8

  /// The protocol with this number.
  @inlinable
  public init(rawValue: UInt8) {
    self.rawValue = rawValue
  }

  /// ICMP for IPv4 (RFC 792).
  @inlinable public static var icmpv4: IPProtocol { IPProtocol(rawValue: 1) }
  /// TCP (RFC 9293).
  @inlinable public static var tcp: IPProtocol { IPProtocol(rawValue: 6) }
  /// UDP (RFC 768).
  @inlinable public static var udp: IPProtocol { IPProtocol(rawValue: 17) }
}
