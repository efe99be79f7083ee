public import PacketFormats

/// Why a ``Responder`` cannot be made.
public enum ResponderConfigurationError: Error, Sendable, Hashable {
  /// A station cannot have this address: it is a group address or zero.
  case stationAddress(MACAddress)
  /// The lists of addresses are empty.
  case noAddress
  /// A host cannot have this address: it is loopback, multicast, reserved, "this network", or the broadcast address of its
  /// network.
  case hostAddress(IPv4Network)
  /// A host cannot have this address in a packet: it is loopback, multicast, unspecified or IPv4-mapped.
  case ipv6HostAddress(IPv6Network)
}

extension ResponderConfigurationError: CustomStringConvertible {
  /// What was wrong, and what to give instead.
  public var description: String {
    switch self {
    case .stationAddress(let address): "\(address) is not the address of one station: give a unicast MAC address"
    case .noAddress: "a responder needs at least one address, for example 10.0.0.1/24 or fd00::1/64"
    case .hostAddress(let network): "\(network) is not the address of a host in that network"
    case .ipv6HostAddress(let network): "\(network) is not the address of a host on a link"
    }
  }
}
