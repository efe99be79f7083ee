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
  /// ICMP for IPv6 (RFC 4443).
  @inlinable public static var icmpv6: IPProtocol { IPProtocol(rawValue: 58) }

  /// Hop-by-hop options, an extension header of IPv6 (RFC 8200 §4.3).
  @inlinable public static var ipv6HopByHop: IPProtocol { IPProtocol(rawValue: 0) }
  /// Routing, an extension header of IPv6 (RFC 8200 §4.4).
  @inlinable public static var ipv6Routing: IPProtocol { IPProtocol(rawValue: 43) }
  /// Fragment, an extension header of IPv6 (RFC 8200 §4.5).
  @inlinable public static var ipv6Fragment: IPProtocol { IPProtocol(rawValue: 44) }
  /// Nothing follows (RFC 8200 §4.7).
  @inlinable public static var ipv6NoNextHeader: IPProtocol { IPProtocol(rawValue: 59) }
  /// Destination options, an extension header of IPv6 (RFC 8200 §4.6).
  @inlinable public static var ipv6DestinationOptions: IPProtocol { IPProtocol(rawValue: 60) }
}
