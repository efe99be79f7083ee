internal import CNetdevSystem
public import PacketFormats

/// An address of a host of either family, as a socket of this machine knows it.
public enum HostAddress: Sendable, Hashable, LosslessStringConvertible {
  /// An IPv4 address.
  case ipv4(IPv4Address)
  /// An IPv6 address.
  case ipv6(IPv6Address)

  /// Reads `127.0.0.1` or `::1`.
  public init?(_ description: String) {
    if let address = IPv4Address(description) {
      self = .ipv4(address)
    } else if let address = IPv6Address(description), !address.isIPv4Mapped {
      self = .ipv6(address)
    } else {
      return nil
    }
  }

  /// Dotted decimal, or hexadecimal groups.
  public var description: String {
    switch self {
    case .ipv4(let address): address.description
    case .ipv6(let address): address.description
    }
  }

  /// With a port: `127.0.0.1:7007`, `[::1]:7007`.
  func description(port: UInt16) -> String {
    switch self {
    case .ipv4(let address): "\(address):\(port)"
    case .ipv6(let address): "[\(address)]:\(port)"
    }
  }

  /// As the system's calls have it: an IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2).
  var mapped: IPv6Address {
    switch self {
    case .ipv4(let address): IPv6Address(high: 0, low: 0xFFFF_0000_0000 | UInt64(address.rawValue))
    case .ipv6(let address): address
    }
  }
}

extension netdev_udp_address {
  init(_ address: IPv6Address) { self.init(high: address.high, low: address.low) }
}

extension IPv6Address {
  init(_ address: netdev_udp_address) { self.init(high: address.high, low: address.low) }
}
