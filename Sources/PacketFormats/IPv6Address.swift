/// An IPv6 address (RFC 4291): sixteen bytes, never on the heap.
///
/// The questions below are those that RFC 4291 §2 asks before an address may be a source or a destination.
@frozen
public struct IPv6Address: Sendable, Hashable {
  /// The first eight bytes on the wire as a number: the network, in the addresses of most hosts.
  public let high: UInt64
  /// The last eight bytes on the wire as a number: the interface identifier, in the addresses of most hosts.
  public let low: UInt64

  /// The address of these two halves, the first byte on the wire being the most significant of `high`.
  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// The link-local address that a station forms from its Ethernet address: `fe80::/64` and the modified EUI-64 identifier
  /// (RFC 4862 §5.3, RFC 2464 §4 and §5), the 48 bits with `ff:fe` in their middle and the universal/local bit inverted.
  @inlinable
  public init(linkLocal address: MACAddress) {
    let company = (address.rawValue >> 24) << 40
    let identifier = company | 0xFF_FE00_0000 | address.rawValue & 0xFF_FFFF
    self.init(high: 0xFE80_0000_0000_0000, low: identifier ^ 0x0200_0000_0000_0000)
  }

  /// `::`, no address: a source only while a host finds out whether an address is free (RFC 4862 §5.4.2).
  @inlinable public static var unspecified: IPv6Address { IPv6Address(high: 0, low: 0) }
  /// `::1`.
  @inlinable public static var loopback: IPv6Address { IPv6Address(high: 0, low: 1) }
  /// `ff02::1`, every node of the link.
  @inlinable public static var allNodes: IPv6Address { IPv6Address(high: 0xFF02_0000_0000_0000, low: 1) }

  /// Whether the address is `::`.
  @inlinable public var isUnspecified: Bool { high | low == 0 }
  /// Whether the address is `::1`, which must not be seen outside a host (RFC 4291 §2.5.3).
  @inlinable public var isLoopback: Bool { high == 0 && low == 1 }
  /// Whether the address is in `ff00::/8`, a group of nodes (RFC 4291 §2.7).
  @inlinable public var isMulticast: Bool { high >> 56 == 0xFF }
  /// Whether the address is in `fe80::/10`, of meaning on one link only (RFC 4291 §2.5.6).
  @inlinable public var isLinkLocal: Bool { high >> 54 == 0x3FA }
  /// Whether the address is in `::ffff:0:0/96`: an IPv4 address in an interface of programs, not one of packets
  /// (RFC 4291 §2.5.5.2).
  @inlinable public var isIPv4Mapped: Bool { high == 0 && low >> 32 == 0xFFFF }
  /// Whether one host on a link can have this address in a packet, as far as the address alone tells. An IPv4-mapped one is
  /// refused, because to the host's programs it would look like a packet of IPv4 that no filter has seen.
  @inlinable public var isHost: Bool { !isMulticast && !isUnspecified && !isLoopback && !isIPv4Mapped }

  /// The group in which a host with this address is asked for its Ethernet address (RFC 4291 §2.7.1): `ff02::1:ff00:0/104`
  /// with the last 24 bits of the address.
  @inlinable public var solicitedNode: IPv6Address {
    IPv6Address(high: 0xFF02_0000_0000_0000, low: 0x0000_0001_FF00_0000 | low & 0xFF_FFFF)
  }
  /// Whether the address is a solicited-node group, of whatever addresses.
  @inlinable public var isSolicitedNode: Bool { high == 0xFF02_0000_0000_0000 && low >> 24 == 0x0000_01FF }
  /// The group of stations that a packet to this group of nodes is sent to (RFC 2464 §7): `33:33` and the last 32 bits.
  @inlinable public var multicastMAC: MACAddress { MACAddress(rawValue: 0x3333_0000_0000 | low & 0xFFFF_FFFF) }

  /// Reads the sixteen bytes at `offset`, or nothing if they are not all there.
  @inlinable
  public init?(decoding bytes: RawSpan, at offset: Int = 0) {
    guard bytes.holds(16, at: offset) else { return nil }
    self.init(high: bytes.loadUInt64(inside: offset), low: bytes.loadUInt64(inside: offset &+ 8))
  }
}

extension IPv6Address: Comparable {
  /// The order of the numbers, which is that of the bytes on the wire.
  @inlinable
  public static func < (left: IPv6Address, right: IPv6Address) -> Bool {
    left.high != right.high ? left.high < right.high : left.low < right.low
  }
}

extension IPv6Address: LosslessStringConvertible {
  /// The three forms of RFC 4291 §2.2: eight groups of hexadecimal digits, `::` once for one or more groups of zeros, and
  /// dotted decimal for the last two groups. A zone (`%eth0`) is none of the address and is refused.
  public init?(_ description: String) {
    self.init(utf8: description.utf8)
  }

  init?(utf8: some Sequence<UInt8>) {
    let text = Array(utf8)
    let colon = UInt8(ascii: ":")
    // The longest form has six groups of four digits and a dotted tail.
    guard text.count <= 45 else { return nil }
    var groups: [UInt16] = []
    var gap: Int?
    var position = 0
    if text.starts(with: [colon, colon]) { (gap, position) = (0, 2) }
    while position < text.count {
      let end = text[position...].firstIndex(of: colon) ?? text.count
      let part = text[position..<end]
      if part.contains(UInt8(ascii: ".")) {
        guard end == text.count, let tail = IPv4Address(utf8: part) else { return nil }
        groups += [UInt16(truncatingIfNeeded: tail.rawValue >> 16), UInt16(truncatingIfNeeded: tail.rawValue)]
      } else {
        guard let group = IPv6Address.group(part) else { return nil }
        groups.append(group)
      }
      position = end
      guard position < text.count else { break }
      // Behind a colon there is another group, or the second colon of the only gap.
      position += 1
      guard position < text.count else { return nil }
      if text[position] == colon {
        guard gap == nil else { return nil }
        gap = groups.count
        position += 1
      }
    }
    guard gap == nil ? groups.count == 8 : groups.count < 8 else { return nil }
    if let gap { groups.insert(contentsOf: repeatElement(0, count: 8 - groups.count), at: gap) }
    self.init(
      high: groups[..<4].reduce(0) { $0 << 16 | UInt64($1) }, low: groups[4...].reduce(0) { $0 << 16 | UInt64($1) })
  }

  /// One to four hexadecimal digits.
  private static func group(_ digits: ArraySlice<UInt8>) -> UInt16? {
    guard digits.count >= 1, digits.count <= 4 else { return nil }
    var value: UInt16 = 0
    for character in digits {
      guard let digit = hexadecimalDigit(character) else { return nil }
      value = value << 4 | UInt16(digit)
    }
    return value
  }

  private func group(_ index: Int) -> UInt16 {
    UInt16(truncatingIfNeeded: (index < 4 ? high : low) >> UInt64(48 - 16 * (index & 3)))
  }

  /// The canonical text of RFC 5952: lower case, no leading zeros, `::` for the longest run of two or more groups of zeros,
  /// the first of equals; dotted decimal behind `::ffff:`.
  public var description: String {
    if isIPv4Mapped { return "::ffff:\(IPv4Address(rawValue: UInt32(truncatingIfNeeded: low)))" }
    var longest = 0..<0
    var start = 0
    for index in 0...8 where index == 8 || group(index) != 0 {
      if index - start > max(longest.count, 1) { longest = start..<index }
      start = index + 1
    }
    let texts = (0..<8).map { String(group($0), radix: 16) }
    guard !longest.isEmpty else { return texts.joined(separator: ":") }
    return texts[..<longest.lowerBound].joined(separator: ":") + "::"
      + texts[longest.upperBound...].joined(separator: ":")
  }
}
