/// An Internet address of either family.
@frozen
public enum IPAddress: Sendable, Hashable {
  /// Of IPv4.
  case v4(IPv4Address)
  /// Of IPv6.
  case v6(IPv6Address)

  /// Whether one host can have this address in a packet, as far as the address alone tells.
  @inlinable public var isHost: Bool {
    switch self {
    case .v4(let address): address.isHost
    case .v6(let address): address.isHost
    }
  }

  /// Whether the address is a group of hosts.
  @inlinable public var isMulticast: Bool {
    switch self {
    case .v4(let address): address.isMulticast
    case .v6(let address): address.isMulticast
    }
  }
}

extension IPAddress: LosslessStringConvertible {
  /// Dotted decimal, or one of the forms of RFC 4291 §2.2.
  public init?(_ description: String) {
    if let address = IPv4Address(description) {
      self = .v4(address)
    } else if let address = IPv6Address(description) {
      self = .v6(address)
    } else {
      return nil
    }
  }

  /// The family's own text.
  public var description: String {
    switch self {
    case .v4(let address): "\(address)"
    case .v6(let address): "\(address)"
    }
  }
}
