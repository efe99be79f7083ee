/// An IPv4 header (RFC 791 §3.1), decoded by value.
///
/// The value is a copy of the first 20 bytes. Decoding makes the copy with three loads and checks it as RFC 1122 §3.2.1 asks
/// (version, lengths, checksum), so that a peer that changes the bytes afterwards changes nothing that was checked. Options
/// are not part of the value: `headerLength` says where they end, ``IPv4Options`` judges them. Encoding writes a header
/// without options.
@frozen
public struct IPv4Header: Sendable, Hashable {
  /// Bytes of a header without options.
  public static var minimumLength: Int { @inlinable get { 20 } }
  /// The longest payload that the 16-bit total length leaves behind a header without options.
  public static var maximumPayloadLength: Int { @inlinable get { 65515 } }

  // The first 20 bytes as copied: version to fragment offset, time to live to source, destination. Fields are cut out of these
  // when asked for. Where `second` had the checksum there are zeros: it was verified, and a new one is computed on the way out.
  @usableFromInline var first: UInt64
  @usableFromInline var second: UInt64
  @usableFromInline var third: UInt32

  /// Bytes of the decoded header with its options, 20 to 60; encoding always writes 20.
  @inlinable public var headerLength: Int { Int(truncatingIfNeeded: (first >> 56) & 0xF) &* 4 }
  /// The whole packet in bytes: header and payload, without Ethernet padding.
  @inlinable public var totalLength: Int { Int(truncatingIfNeeded: (first >> 32) & 0xFFFF) }
  /// Bytes behind the header that belong to the packet, without Ethernet padding.
  @inlinable public var payloadLength: Int { totalLength &- headerLength }
  /// Differentiated services code point and, in the lowest two bits, ECN (RFC 2474, RFC 3168).
  @inlinable public var trafficClass: UInt8 { UInt8(truncatingIfNeeded: first >> 48) }
  /// Groups the fragments of one packet; of no meaning in a packet that is not, and must not be, fragmented (RFC 6864).
  @inlinable public var identification: UInt16 { UInt16(truncatingIfNeeded: first >> 16) }
  /// Whether routers must not fragment the packet (the flag DF).
  @inlinable public var doNotFragment: Bool { first & 0x4000 != 0 }
  /// Whether the packet is a piece of a larger one: more fragments follow, or the offset is not zero (RFC 791 §3.2).
  @inlinable public var isFragment: Bool { first & 0x3FFF != 0 }
  /// How many routers the packet may still pass.
  @inlinable public var timeToLive: UInt8 { UInt8(truncatingIfNeeded: second >> 56) }
  /// What the payload is.
  @inlinable public var `protocol`: IPProtocol { IPProtocol(rawValue: UInt8(truncatingIfNeeded: second >> 48)) }
  /// Who sent the packet.
  @inlinable public var source: IPv4Address { IPv4Address(rawValue: UInt32(truncatingIfNeeded: second)) }
  /// Who the packet is for.
  @inlinable public var destination: IPv4Address { IPv4Address(rawValue: third) }
  /// Whether options follow the first 20 bytes.
  @inlinable public var hasOptions: Bool { headerLength > IPv4Header.minimumLength }

  /// A header without options for a packet that is never fragmented: DF set, identification zero (RFC 6864 §4.1 leaves its
  /// value open in such packets). The time to live is 64 unless said otherwise (IANA's recommended default).
  ///
  /// Throws `payloadTooLong` unless `payloadLength` is between 0 and 65515.
  @inlinable @inline(__always)
  public init(
    source: IPv4Address, destination: IPv4Address, protocol: IPProtocol, payloadLength: Int, timeToLive: UInt8 = 64,
    trafficClass: UInt8 = 0
  ) throws(PacketFormatError) {
    guard payloadLength >= 0, payloadLength <= IPv4Header.maximumPayloadLength else {
      throw .payloadTooLong(payloadLength, limit: IPv4Header.maximumPayloadLength)
    }
    let totalLength = UInt64(truncatingIfNeeded: IPv4Header.minimumLength &+ payloadLength)
    first = IPv4Header.plainFront | UInt64(trafficClass) << 48 | totalLength << 32
    second = UInt64(timeToLive) << 56 | UInt64(`protocol`.rawValue) << 48 | UInt64(source.rawValue)
    third = destination.rawValue
  }

  // Version 4, a header of five words, DF.
  @inlinable static var plainFront: UInt64 { 0x4500_0000_0000_4000 }

  /// The header of an answer from `destination` to `source` with the same protocol and a payload of `payloadLength` bytes,
  /// which must not be longer than that of the packet answered. It takes over the code point, as RFC 1349 §5.1 asks, but not
  /// the ECN bits, which the answering end must not claim for itself (RFC 3168 §6.1); everything else is fresh.
  @inlinable @inline(__always)
  package func answer(payloadLength: Int, timeToLive: UInt8) -> IPv4Header {
    var header = self
    let totalLength = UInt64(truncatingIfNeeded: IPv4Header.minimumLength &+ payloadLength)
    header.first = IPv4Header.plainFront | first & 0x00FC << 48 | totalLength << 32
    header.second = UInt64(timeToLive) << 56 | second & 0x00FF << 48 | UInt64(third)
    header.third = UInt32(truncatingIfNeeded: second)
    return header
  }

  /// Reads and checks the header at `offset`; the packet may be followed by padding.
  ///
  /// Throws, in this order: `truncated` below 20 bytes, `ipVersion`, `ipHeaderLength`, `ipTotalLength`,
  /// `ipHeaderChecksum`. Addresses, options and fragmentation are left to the caller, who knows what they mean to it.
  @inlinable @inline(__always)
  public init(decoding bytes: RawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(IPv4Header.minimumLength, at: offset) else {
      throw .truncated(IPv4Header.minimumLength, at: offset, of: bytes.byteCount)
    }
    let available = bytes.byteCount &- offset
    first = bytes.loadUInt64(inside: offset)
    second = bytes.loadUInt64(inside: offset &+ 8)
    third = bytes.loadUInt32(inside: offset &+ 16)

    guard first >> 60 == 4 else { throw PacketFormatError(.ipVersion, .number(first >> 60)) }
    guard headerLength >= IPv4Header.minimumLength, headerLength <= available else {
      throw PacketFormatError(.ipHeaderLength, .length(headerLength, limit: available))
    }
    guard totalLength >= headerLength, totalLength <= available else {
      throw PacketFormatError(.ipTotalLength, .length(totalLength, limit: available))
    }

    // The words already read are those summed: what was checked is what is used.
    var checksum = InternetChecksum()
    checksum.add(first)
    checksum.add(second)
    checksum.add(third)
    if hasOptions {
      checksum.add(bytes.extracting((offset &+ IPv4Header.minimumLength)..<(offset &+ headerLength)))
    }
    guard checksum.isValid else { throw PacketFormatError(.ipHeaderChecksum, .number(second >> 32 & 0xFFFF)) }
    second &= 0xFFFF_0000_FFFF_FFFF
  }

  /// Writes the header at `offset`, 20 bytes with its checksum; a decoded header loses its options.
  ///
  /// Throws `truncated` if the header does not fit; then nothing is written. The payload itself is not looked at.
  @inlinable @inline(__always)
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(IPv4Header.minimumLength, at: offset) else {
      throw .truncated(IPv4Header.minimumLength, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset)
  }

  /// Writes the header where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func store(into bytes: inout MutableRawSpan, at offset: Int = 0) {
    // Without options there are five words of header, and the total length is shorter by the options.
    let totalLength = UInt64(truncatingIfNeeded: IPv4Header.minimumLength &+ payloadLength)
    let first = first & 0x00FF_0000_FFFF_FFFF | 0x45 << 56 | totalLength << 32
    var checksum = InternetChecksum()
    checksum.add(first)
    checksum.add(second)
    checksum.add(third)
    bytes.storeUInt64(first, inside: offset)
    bytes.storeUInt64(second | UInt64(checksum.value) << 32, inside: offset &+ 8)
    bytes.storeUInt32(third, inside: offset &+ 16)
  }

  /// The sum of the pseudo-header that transport checksums cover (RFC 768): both addresses and the protocol. The transport
  /// adds its own length, and another network protocol has another such sum: the transports need know neither.
  @inlinable public var pseudoHeader: InternetChecksum {
    var sum = InternetChecksum()
    sum.add(second << 32 | UInt64(third))
    sum.add(UInt16(`protocol`.rawValue))
    return sum
  }
}
