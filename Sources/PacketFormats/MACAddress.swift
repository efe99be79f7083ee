/// A 48-bit Ethernet address (IEEE 802 EUI-48).
///
/// A value of eight bytes, never on the heap. Bit 0 of the first byte on the wire marks a group address, bit 1 a locally
/// administered one.
///
///     let address = MACAddress("52:54:00:12:34:56")
@frozen
public struct MACAddress: Sendable, Hashable {
  /// The address as a number: the first byte on the wire is the most significant of the lower 48 bits; the rest is zero.
  public let rawValue: UInt64

  /// The address whose bytes are the lower 48 bits of `rawValue`, most significant first; the upper 16 bits are ignored.
  @inlinable
  public init(rawValue: UInt64) {
    self.rawValue = rawValue & 0xFFFF_FFFF_FFFF
  }

  /// The address with these bytes, in the order of the wire.
  @inlinable
  public init(_ b0: UInt8, _ b1: UInt8, _ b2: UInt8, _ b3: UInt8, _ b4: UInt8, _ b5: UInt8) {
    let high = UInt64(b0) << 40 | UInt64(b1) << 32 | UInt64(b2) << 24
    self.init(rawValue: high | UInt64(b3) << 16 | UInt64(b4) << 8 | UInt64(b5))
  }

  /// `ff:ff:ff:ff:ff:ff`, every station of the link.
  @inlinable public static var broadcast: MACAddress { MACAddress(rawValue: 0xFFFF_FFFF_FFFF) }
  /// `00:00:00:00:00:00`, which no station has.
  @inlinable public static var zero: MACAddress { MACAddress(rawValue: 0) }

  /// Whether the address is `ff:ff:ff:ff:ff:ff`.
  @inlinable public var isBroadcast: Bool { rawValue == 0xFFFF_FFFF_FFFF }
  /// Whether the address names a group of stations: multicast, or broadcast.
  @inlinable public var isGroup: Bool { rawValue & 0x0100_0000_0000 != 0 }
  /// Whether one station can have this address: neither a group nor zero.
  @inlinable public var isUnicast: Bool { !isGroup && rawValue != 0 }
  /// Whether the address was chosen locally rather than bought from the IEEE.
  @inlinable public var isLocallyAdministered: Bool { rawValue & 0x0200_0000_0000 != 0 }

  /// The byte at `index` in the order of the wire, 0 to 5; zero for any other index.
  @inlinable
  public subscript(index: Int) -> UInt8 {
    guard index >= 0, index < 6 else { return 0 }
    return UInt8(truncatingIfNeeded: rawValue >> UInt64(40 &- 8 &* index))
  }

  /// Reads the six bytes at `offset`, or nothing if they are not all there.
  @inlinable
  public init?(decoding bytes: RawSpan, at offset: Int = 0) {
    guard bytes.holds(6, at: offset) else { return nil }
    let high = UInt64(bytes.loadUInt32(inside: offset)) << 16
    self.init(rawValue: high | UInt64(bytes.loadUInt16(inside: offset &+ 4)))
  }
}

extension MACAddress: LosslessStringConvertible {
  /// Six pairs of hexadecimal digits with colons, or dashes (IEEE 802), between them; nothing else is taken.
  public init?(_ description: String) {
    var value: UInt64 = 0
    var position = 0
    var separator: UInt8?
    for character in description.utf8 {
      guard position < 17 else { return nil }
      if position % 3 == 2 {
        guard character == UInt8(ascii: ":") || character == UInt8(ascii: "-") else { return nil }
        guard separator == nil || separator == character else { return nil }
        separator = character
      } else {
        guard let digit = hexadecimalDigit(character) else { return nil }
        value = value << 4 | UInt64(digit)
      }
      position += 1
    }
    guard position == 17 else { return nil }
    self.init(rawValue: value)
  }

  /// Lower-case hexadecimal with colons: `52:54:00:12:34:56`.
  public var description: String {
    var text = ""
    text.reserveCapacity(17)
    for index in 0..<6 {
      if index > 0 { text += ":" }
      if self[index] < 16 { text += "0" }
      text += String(self[index], radix: 16)
    }
    return text
  }
}

/// The value of one hexadecimal digit.
func hexadecimalDigit(_ character: UInt8) -> UInt8? {
  switch character {
  case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
  case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
  case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
  default: nil
  }
}
