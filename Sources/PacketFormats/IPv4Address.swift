/// An IPv4 address (RFC 791 §3.2): four bytes, never on the heap.
///
/// The questions below are those RFC 1122 §3.2.1.3 asks before an address may be a source or a destination.
@frozen
public struct IPv4Address: Sendable, Hashable {
  /// The address as a number: `10.0.0.1` is `0x0A00_0001`.
  public let rawValue: UInt32

  /// The address with this number, the first byte on the wire being the most significant.
  @inlinable
  public init(rawValue: UInt32) {
    self.rawValue = rawValue
  }

  /// The address `b0.b1.b2.b3`.
  @inlinable
  public init(_ b0: UInt8, _ b1: UInt8, _ b2: UInt8, _ b3: UInt8) {
    rawValue = UInt32(b0) << 24 | UInt32(b1) << 16 | UInt32(b2) << 8 | UInt32(b3)
  }

  /// `0.0.0.0`, this host on this network: a source only while a host learns its address.
  @inlinable public static var unspecified: IPv4Address { IPv4Address(rawValue: 0) }
  /// `255.255.255.255`, every host on this link.
  @inlinable public static var broadcast: IPv4Address { IPv4Address(rawValue: 0xFFFF_FFFF) }
  /// `127.0.0.1`.
  @inlinable public static var loopback: IPv4Address { IPv4Address(127, 0, 0, 1) }

  /// Whether the address is `0.0.0.0`.
  @inlinable public var isUnspecified: Bool { rawValue == 0 }
  /// Whether the address is in `0.0.0.0/8`, "this network" (RFC 1122 §3.2.1.3 (a), (b)).
  @inlinable public var isThisNetwork: Bool { rawValue >> 24 == 0 }
  /// Whether the address is in `127.0.0.0/8`, which must not be seen outside a host (RFC 1122 §3.2.1.3 (g)).
  @inlinable public var isLoopback: Bool { rawValue >> 24 == 127 }
  /// Whether the address is in `224.0.0.0/4`, a group of hosts (RFC 1112 §4).
  @inlinable public var isMulticast: Bool { rawValue >> 28 == 0xE }
  /// Whether the address is in `240.0.0.0/4`, reserved (RFC 1112 §4), the limited broadcast among them.
  @inlinable public var isReserved: Bool { rawValue >> 28 == 0xF }
  /// Whether the address is `255.255.255.255`.
  @inlinable public var isLimitedBroadcast: Bool { rawValue == 0xFFFF_FFFF }
  /// Whether one host on a link can have this address, as far as the address alone tells. The broadcast address of a network
  /// is only known with its prefix: see ``IPv4Network/isBroadcast(_:)``.
  @inlinable public var isHost: Bool {
    // The two comparisons cover 224/4 and 240/4 in one, and 0/8 and 127/8.
    rawValue < 0xE000_0000 && !isThisNetwork && !isLoopback
  }

  /// Reads the four bytes at `offset`, or nothing if they are not all there.
  @inlinable
  public init?(decoding bytes: RawSpan, at offset: Int = 0) {
    guard bytes.holds(4, at: offset) else { return nil }
    self.init(rawValue: bytes.loadUInt32(inside: offset))
  }
}

extension IPv4Address: Comparable {
  /// The order of the numbers, which is that of the text when its parts are compared as numbers.
  @inlinable
  public static func < (left: IPv4Address, right: IPv4Address) -> Bool { left.rawValue < right.rawValue }
}

extension IPv4Address: LosslessStringConvertible {
  /// Four decimal numbers with dots between them. Leading zeros are refused, because others read them as octal
  /// (RFC 6943 §3.1.1), and so are the short forms of `inet_aton`.
  public init?(_ description: String) {
    self.init(utf8: description.utf8)
  }

  init?(utf8: some Sequence<UInt8>) {
    var address: UInt32 = 0
    var number: UInt32 = 0
    var digits = 0
    var dots = 0
    for character in utf8 {
      if character == UInt8(ascii: ".") {
        guard digits > 0, dots < 3 else { return nil }
        address = address << 8 | number
        (number, digits, dots) = (0, 0, dots + 1)
      } else {
        guard character >= UInt8(ascii: "0"), character <= UInt8(ascii: "9"), digits == 0 || number != 0
        else { return nil }
        number = number * 10 + UInt32(character - UInt8(ascii: "0"))
        digits += 1
        guard number <= 255 else { return nil }
      }
    }
    guard dots == 3, digits > 0 else { return nil }
    self.init(rawValue: address << 8 | number)
  }

  /// Dotted decimal: `10.0.0.1`.
  public var description: String {
    "\(rawValue >> 24).\(rawValue >> 16 & 0xFF).\(rawValue >> 8 & 0xFF).\(rawValue & 0xFF)"
  }
}
