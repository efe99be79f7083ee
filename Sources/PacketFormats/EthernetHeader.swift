/// What an Ethernet II frame carries (IEEE 802.3 §3.2.6; numbers from the IANA registry).
@frozen
public struct EtherType: RawRepresentable, Sendable, Hashable {
  /// The number on the wire.
  public let rawValue: UInt16

  /// The type with this number.
  @inlinable
  public init(rawValue: UInt16) {
    self.rawValue = rawValue
  }

  /// IPv4 (RFC 894).
  @inlinable public static var ipv4: EtherType { EtherType(rawValue: 0x0800) }
  /// ARP (RFC 826).
  @inlinable public static var arp: EtherType { EtherType(rawValue: 0x0806) }
  /// IPv6 (RFC 2464).
  @inlinable public static var ipv6: EtherType { EtherType(rawValue: 0x86DD) }
  /// A customer's VLAN tag stands here, the one of IEEE 802.1Q.
  @inlinable public static var customerTag: EtherType { EtherType(rawValue: 0x8100) }
  /// A provider's VLAN tag stands here, the outer one of IEEE 802.1ad.
  @inlinable public static var serviceTag: EtherType { EtherType(rawValue: 0x88A8) }

  /// Whether a VLAN tag stands where the type would: IEEE 802.1Q (0x8100), 802.1ad (0x88A8), or the older 0x9100.
  @inlinable public var isVLANTag: Bool { rawValue == 0x8100 || rawValue == 0x88A8 || rawValue == 0x9100 }
  /// Whether the number is no type but the length of an IEEE 802.3 frame: up to 1500. The numbers from there to 0x0600 are
  /// neither.
  @inlinable public var isLength: Bool { rawValue <= 1500 }
}

extension EtherType: CustomStringConvertible {
  /// The name of the types that have one here, `IPv4`, `ARP`, `IPv6`, `802.1Q`, `802.1ad`; else the number: `0x88cc`.
  public var description: String {
    switch self {
    case .ipv4: return "IPv4"
    case .arp: return "ARP"
    case .ipv6: return "IPv6"
    case .customerTag: return "802.1Q"
    case .serviceTag: return "802.1ad"
    default: break
    }
    let digits = String(rawValue, radix: 16)
    return "0x" + String(repeating: "0", count: 4 - digits.count) + digits
  }
}

/// The 14 bytes in front of every Ethernet II frame: to whom, from whom, what.
///
/// Decoding copies the header once; whatever happens to the bytes afterwards, the value stays what was checked. A VLAN tag is
/// noticed here (``EtherType/isVLANTag``) and read by ``VLANTag``.
@frozen
public struct EthernetHeader: Sendable, Hashable {
  /// Bytes on the wire.
  public static var length: Int { @inlinable get { 14 } }

  /// The station, or group of stations, the frame is for.
  public let destination: MACAddress
  // The last eight bytes of the header as copied: source and type.
  @usableFromInline var back: UInt64

  /// The station that sent the frame.
  @inlinable public var source: MACAddress { MACAddress(rawValue: back >> 16) }
  /// What follows the header.
  @inlinable public var etherType: EtherType { EtherType(rawValue: UInt16(truncatingIfNeeded: back)) }

  /// A header with these fields.
  @inlinable
  public init(destination: MACAddress, source: MACAddress, etherType: EtherType) {
    self.destination = destination
    back = source.rawValue << 16 | UInt64(etherType.rawValue)
  }

  /// Reads the header at `offset`. Throws `truncated`.
  @inlinable @inline(__always)
  public init(decoding bytes: RawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(EthernetHeader.length, at: offset) else {
      throw .truncated(EthernetHeader.length, at: offset, of: bytes.byteCount)
    }
    // Bytes 0–7 hold the destination, bytes 6–13 the source and the type: two loads are enough.
    let front = bytes.loadUInt64(inside: offset)
    back = bytes.loadUInt64(inside: offset &+ 6)
    destination = MACAddress(rawValue: front >> 16)
  }

  /// Writes the header at `offset`. Throws `truncated` if it does not fit; then nothing is written.
  @inlinable @inline(__always)
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(EthernetHeader.length, at: offset) else {
      throw .truncated(EthernetHeader.length, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset)
  }

  /// Writes the header where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func store(into bytes: inout MutableRawSpan, at offset: Int = 0) {
    bytes.storeUInt64(destination.rawValue << 16 | back >> 48, inside: offset)
    bytes.storeUInt64(back, inside: offset &+ 6)
  }
}
