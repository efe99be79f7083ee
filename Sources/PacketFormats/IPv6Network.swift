/// An IPv6 address with its prefix, as in `fd00::1/64` (RFC 4291 §2.3).
///
/// The address is kept as given, so the value says both things an interface must know: which host it is and in which network.
/// Equality compares both.
@frozen
public struct IPv6Network: Sendable, Hashable {
  /// The address as given, interface identifier and all.
  public let address: IPv6Address
  /// How many leading bits name the network: 0 to 128.
  public let prefixLength: Int

  /// An address and its prefix, or nothing if the prefix is not between 0 and 128 bits.
  @inlinable
  public init?(_ address: IPv6Address, prefixLength: Int) {
    guard prefixLength >= 0, prefixLength <= 128 else { return nil }
    self.address = address
    self.prefixLength = prefixLength
  }

  /// The network of every link itself, `fe80::/64`, with the address that a station forms there (RFC 4862 §5.3).
  @inlinable
  public init(linkLocal address: MACAddress) {
    self.address = IPv6Address(linkLocal: address)
    prefixLength = 64
  }

  /// Whether `other` is in this network.
  @inlinable
  public func contains(_ other: IPv6Address) -> Bool {
    // Smart shifts: by 64 bits they give zero, where masking shifts would give everything.
    let high = UInt64.max << UInt64(64 &- min(prefixLength, 64))
    let low = UInt64.max << UInt64(128 &- max(prefixLength, 64))
    return (other.high ^ address.high) & high == 0 && (other.low ^ address.low) & low == 0
  }
}

extension IPv6Network: LosslessStringConvertible {
  /// `address/prefix`, the prefix in decimal; it is required and has no leading zeros.
  public init?(_ description: String) {
    let utf8 = description.utf8
    guard let slash = utf8.firstIndex(of: UInt8(ascii: "/")),
      let address = IPv6Address(utf8: utf8[..<slash]),
      let prefixLength = decimalPrefix(utf8[utf8.index(after: slash)...], most: 128)
    else { return nil }
    self.init(address, prefixLength: prefixLength)
  }

  /// `fd00::1/64`.
  public var description: String { "\(address)/\(prefixLength)" }
}
