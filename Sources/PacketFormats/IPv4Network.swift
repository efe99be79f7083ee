/// An IPv4 address with its prefix, as in `10.0.0.1/24` (CIDR, RFC 4632 §3.1).
///
/// The address is kept as given, so the value says both things an interface must know: which host it is and in which network.
/// Equality compares both; ``networkAddress`` is the same for all hosts of a network.
@frozen
public struct IPv4Network: Sendable, Hashable {
  /// The address as given, host part and all.
  public let address: IPv4Address
  /// How many leading bits name the network: 0 to 32.
  public let prefixLength: Int

  /// An address and its prefix, or nothing if the prefix is not between 0 and 32 bits.
  @inlinable
  public init?(_ address: IPv4Address, prefixLength: Int) {
    guard prefixLength >= 0, prefixLength <= 32 else { return nil }
    self.address = address
    self.prefixLength = prefixLength
  }

  /// The prefix as a mask: `255.255.255.0` for 24 bits.
  @inlinable public var mask: IPv4Address {
    // A smart shift: 32 bits give zero, where a masking shift would give everything.
    IPv4Address(rawValue: UInt32.max << UInt32(32 &- prefixLength))
  }
  /// The address with its host part zero.
  @inlinable public var networkAddress: IPv4Address { IPv4Address(rawValue: address.rawValue & mask.rawValue) }
  /// The address that means every host of this network; none for prefixes of 31 (RFC 3021) and 32 bits.
  @inlinable public var broadcastAddress: IPv4Address? {
    prefixLength < 31 ? IPv4Address(rawValue: address.rawValue | ~mask.rawValue) : nil
  }

  /// Whether `other` is in this network.
  @inlinable
  public func contains(_ other: IPv4Address) -> Bool {
    (other.rawValue ^ address.rawValue) & mask.rawValue == 0
  }

  /// Whether `other` means all hosts of this network: the host part all ones, or all zeros as 4.2BSD did
  /// (RFC 1122 §3.3.6 asks to know both).
  @inlinable
  public func isBroadcast(_ other: IPv4Address) -> Bool {
    guard let broadcastAddress else { return false }
    return other == broadcastAddress || other == networkAddress
  }
}

extension IPv4Network: LosslessStringConvertible {
  /// `address/prefix` in decimal; the prefix is required and has no leading zeros.
  public init?(_ description: String) {
    let utf8 = description.utf8
    guard let slash = utf8.firstIndex(of: UInt8(ascii: "/")),
      let address = IPv4Address(utf8: utf8[..<slash]),
      let prefixLength = decimalPrefix(utf8[utf8.index(after: slash)...], most: 32)
    else { return nil }
    self.init(address, prefixLength: prefixLength)
  }

  /// `10.0.0.1/24`.
  public var description: String { "\(address)/\(prefixLength)" }
}

/// A prefix length in decimal digits without leading zeros, up to `most`.
func decimalPrefix(_ digits: some Collection<UInt8>, most: Int) -> Int? {
  guard let first = digits.first, digits.count <= 3, digits.count == 1 || first != UInt8(ascii: "0") else { return nil }
  var value = 0
  for digit in digits {
    guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
    value = value * 10 + Int(digit - UInt8(ascii: "0"))
  }
  return value <= most ? value : nil
}
