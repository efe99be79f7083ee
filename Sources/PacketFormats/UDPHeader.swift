/// A UDP header (RFC 768), copied by one load and then checked.
///
/// The checksum also covers a pseudo-header of the network protocol below. It is passed in as a sum, so that the same code
/// serves IPv4 and any other network protocol.
@frozen
public struct UDPHeader: Sendable, Hashable {
  /// Bytes on the wire.
  public static var length: Int { @inlinable get { 8 } }
  /// The longest payload that the 16-bit length leaves behind the header (IPv4 allows 20 bytes less).
  public static var maximumPayloadLength: Int { @inlinable get { 65527 } }

  // The eight bytes as copied: ports, length, checksum.
  @usableFromInline var word: UInt64

  /// The port of the sender; zero if no answer is expected.
  @inlinable public var sourcePort: UInt16 { UInt16(truncatingIfNeeded: word >> 48) }
  /// The port the datagram is for.
  @inlinable public var destinationPort: UInt16 { UInt16(truncatingIfNeeded: word >> 32) }
  /// The length field: bytes of header and payload.
  @inlinable public var datagramLength: Int { Int(truncatingIfNeeded: (word >> 16) & 0xFFFF) }
  /// Bytes behind the header that belong to the datagram.
  @inlinable public var payloadLength: Int { datagramLength &- UDPHeader.length }
  /// The checksum as received; zero if the sender computed none. Encoding with a pseudo-header computes it anew.
  @inlinable public var checksum: UInt16 { UInt16(truncatingIfNeeded: word) }

  /// A header with these fields and no checksum yet. Throws `payloadTooLong` unless `payloadLength` is between 0 and 65527.
  @inlinable
  public init(sourcePort: UInt16, destinationPort: UInt16, payloadLength: Int) throws(PacketFormatError) {
    guard payloadLength >= 0, payloadLength <= UDPHeader.maximumPayloadLength else {
      throw .payloadTooLong(payloadLength, limit: UDPHeader.maximumPayloadLength)
    }
    let length = UInt64(truncatingIfNeeded: UDPHeader.length &+ payloadLength)
    word = UInt64(sourcePort) << 48 | UInt64(destinationPort) << 32 | length << 16
  }

  /// Reads and checks the datagram at `offset`, for which the network header leaves `available` bytes.
  ///
  /// A length below `available` is legal, what is behind it is not part of the datagram; a checksum of zero says that none
  /// was computed. Throws `truncated` if the bytes are not there, `udpLength`, and `udpChecksum`.
  @inlinable @inline(__always)
  public init(
    decoding bytes: RawSpan, at offset: Int = 0, available: Int, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard bytes.holds(available, at: offset) else { throw .truncated(available, at: offset, of: bytes.byteCount) }
    guard available >= UDPHeader.length else {
      throw PacketFormatError(.udpLength, .length(UDPHeader.length, limit: available))
    }
    word = bytes.loadUInt64(inside: offset)
    guard datagramLength >= UDPHeader.length, datagramLength <= available else {
      throw PacketFormatError(.udpLength, .length(datagramLength, limit: available))
    }
    if checksum != 0 {
      // The length counts twice: in the header, and in the pseudo-header that the caller has summed without it.
      var sum = pseudoHeader
      sum.add(word)
      sum.add(UInt16(truncatingIfNeeded: datagramLength))
      sum.add(bytes.extracting((offset &+ UDPHeader.length)..<(offset &+ datagramLength)))
      guard sum.isValid else { throw PacketFormatError(.udpChecksum, .number(UInt64(checksum))) }
    }
  }

  /// The header of an answer with the same payload: ports exchanged.
  ///
  /// If source and destination address are exchanged as well, the checksum of the datagram stays right, because a sum does
  /// not depend on the order of its terms; so a checksum that was verified is kept.
  @inlinable public var reversed: UDPHeader {
    var header = self
    header.word = word << 16 & 0xFFFF << 48 | word >> 16 & 0xFFFF << 32 | word & 0xFFFF_FFFF
    return header
  }

  /// Writes the header at `offset` with the checksum it has. Throws `truncated` if it does not fit; then nothing is written.
  @inlinable @inline(__always)
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(UDPHeader.length, at: offset) else {
      throw .truncated(UDPHeader.length, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset)
  }

  /// Writes the header where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func store(into bytes: inout MutableRawSpan, at offset: Int = 0) {
    bytes.storeUInt64(word, inside: offset)
  }

  /// Writes the header at `offset`, in front of the payload that is already there, with a checksum over both.
  ///
  /// A checksum that comes out as zero is sent as 0xFFFF, the other zero of one's complement, because zero says that there is
  /// none (RFC 768). Throws `truncated` if header and payload are not inside the bytes; then nothing is written.
  @inlinable @inline(__always)
  public func encode(
    into bytes: inout MutableRawSpan, at offset: Int = 0, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard bytes.holds(datagramLength, at: offset) else {
      throw .truncated(datagramLength, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset, pseudoHeader: pseudoHeader)
  }

  /// The same, where the caller knows that header and payload are inside; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func store(into bytes: inout MutableRawSpan, at offset: Int, pseudoHeader: InternetChecksum) {
    let word = word & ~0xFFFF
    var sum = pseudoHeader
    sum.add(word)
    sum.add(UInt16(truncatingIfNeeded: datagramLength))
    sum.add(bytes.bytes.extracting((offset &+ UDPHeader.length)..<(offset &+ datagramLength)))
    bytes.storeUInt64(word | UInt64(sum.value == 0 ? 0xFFFF : sum.value), inside: offset)
  }
}
