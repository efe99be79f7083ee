/// An IPv6 header (RFC 8200 §3), decoded by value.
///
/// The value is a copy of the 40 bytes, made with five loads, so that a peer that changes the bytes afterwards changes nothing
/// that was checked. Extension headers are not part of it: ``IPv6Payload`` walks them. There is no checksum in this header:
/// that of the transport covers the addresses, and each transport must have one (RFC 8200 §8.1).
@frozen
public struct IPv6Header: Sendable, Hashable {
  /// Bytes on the wire.
  public static var length: Int { @inlinable get { 40 } }
  /// The longest payload that the 16-bit length leaves; jumbograms (RFC 2675) are not known here.
  public static var maximumPayloadLength: Int { @inlinable get { 65535 } }

  // The first eight bytes as copied: version to hop limit. The fields are cut out of these when asked for.
  @usableFromInline var first: UInt64
  /// Who sent the packet.
  public let source: IPv6Address
  /// Who the packet is for.
  public let destination: IPv6Address

  /// Differentiated services code point and, in the lowest two bits, ECN (RFC 2474, RFC 3168).
  @inlinable public var trafficClass: UInt8 { UInt8(truncatingIfNeeded: first >> 52) }
  /// Tells packets of one flow from others on their way (RFC 6437); zero if the source labels none.
  @inlinable public var flowLabel: UInt32 { UInt32(truncatingIfNeeded: first >> 32) & 0xF_FFFF }
  /// Bytes behind this header that belong to the packet, extension headers included, without Ethernet padding.
  @inlinable public var payloadLength: Int { Int(truncatingIfNeeded: first >> 16 & 0xFFFF) }
  /// What follows this header: an extension header or a transport.
  @inlinable public var nextHeader: IPProtocol { IPProtocol(rawValue: UInt8(truncatingIfNeeded: first >> 8)) }
  /// How many routers the packet may still pass.
  @inlinable public var hopLimit: UInt8 { UInt8(truncatingIfNeeded: first) }

  /// A header without a flow label. The hop limit is 64 unless said otherwise (IANA's recommended default).
  ///
  /// Throws `payloadTooLong` unless `payloadLength` is between 0 and 65535.
  @inlinable
  public init(
    source: IPv6Address, destination: IPv6Address, nextHeader: IPProtocol, payloadLength: Int, hopLimit: UInt8 = 64,
    trafficClass: UInt8 = 0
  ) throws(PacketFormatError) {
    guard payloadLength >= 0, payloadLength <= IPv6Header.maximumPayloadLength else {
      throw .payloadTooLong(payloadLength, limit: IPv6Header.maximumPayloadLength)
    }
    self.init(
      source: source, destination: destination, nextHeader: nextHeader, knownLength: payloadLength,
      hopLimit: hopLimit, trafficClass: trafficClass)
  }

  /// The same for a payload that is known to be from 0 to 65535 bytes long: a longer one leaves its upper bits out.
  @inlinable @inline(__always)
  package init(
    source: IPv6Address, destination: IPv6Address, nextHeader: IPProtocol, knownLength payloadLength: Int,
    hopLimit: UInt8, trafficClass: UInt8
  ) {
    let front = 6 << 60 | UInt64(trafficClass) << 52
    let length = UInt64(UInt16(truncatingIfNeeded: payloadLength)) << 16
    first = front | length | UInt64(nextHeader.rawValue) << 8 | UInt64(hopLimit)
    self.source = source
    self.destination = destination
  }

  /// Reads and checks the header at `offset`; the packet may be followed by padding.
  ///
  /// Throws, in this order: `truncated` below 40 bytes, `ipVersion`, `ipTotalLength`. Addresses and extension headers are
  /// left to the caller, who knows what they mean to it.
  @inlinable @inline(__always)
  public init(decoding bytes: RawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(IPv6Header.length, at: offset) else {
      throw .truncated(IPv6Header.length, at: offset, of: bytes.byteCount)
    }
    first = bytes.loadUInt64(inside: offset)
    source = IPv6Address(high: bytes.loadUInt64(inside: offset &+ 8), low: bytes.loadUInt64(inside: offset &+ 16))
    destination = IPv6Address(high: bytes.loadUInt64(inside: offset &+ 24), low: bytes.loadUInt64(inside: offset &+ 32))
    guard first >> 60 == 6 else { throw PacketFormatError(.ipVersion, .number(first >> 60)) }
    // `holds` has said that the header is inside, so the difference is not negative.
    let available = bytes.byteCount &- offset &- IPv6Header.length
    guard payloadLength <= available else {
      throw PacketFormatError(.ipTotalLength, .length(payloadLength, limit: available))
    }
  }

  /// Writes the header at `offset`. Throws `truncated` if it does not fit; then nothing is written. The payload itself is not
  /// looked at.
  @inlinable @inline(__always)
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(IPv6Header.length, at: offset) else {
      throw .truncated(IPv6Header.length, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset)
  }

  /// Writes the header where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func store(into bytes: inout MutableRawSpan, at offset: Int = 0) {
    bytes.storeUInt64(first, inside: offset)
    bytes.storeUInt64(source.high, inside: offset &+ 8)
    bytes.storeUInt64(source.low, inside: offset &+ 16)
    bytes.storeUInt64(destination.high, inside: offset &+ 24)
    bytes.storeUInt64(destination.low, inside: offset &+ 32)
  }

  /// The sum of the pseudo-header that the checksum of `transport` covers (RFC 8200 §8.1): both addresses and the protocol,
  /// which is the transport's own also where extension headers stand before it. The transport adds its length.
  @inlinable
  public func pseudoHeader(for transport: IPProtocol) -> InternetChecksum {
    var sum = InternetChecksum()
    sum.add(source.high)
    sum.add(source.low)
    sum.add(destination.high)
    sum.add(destination.low)
    sum.add(UInt16(transport.rawValue))
    return sum
  }
}
