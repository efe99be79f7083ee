/// A UDP header (RFC 768), decoded by value and checked.
///
/// The checksum also covers a pseudo-header of the network protocol below. It is passed in as a sum, so that the same code
/// serves IPv4 and any other network protocol.
@frozen
public struct UDPHeader: Sendable, Hashable {
  /// Bytes on the wire.
  public static var length: Int { @inlinable get { 8 } }
  /// The longest payload that the 16-bit length leaves behind the header (IPv4 allows 20 bytes less).
  public static var maximumPayloadLength: Int { @inlinable get { 65527 } }

  /// The port of the sender; zero if no answer is expected.
  public var sourcePort: UInt16
  /// The port the datagram is for.
  public var destinationPort: UInt16
  /// Bytes behind the header that belong to the datagram.
  public var payloadLength: Int
  /// The checksum as received; zero if the sender computed none. Encoding with a pseudo-header computes it anew.
  public let checksum: UInt16

  /// The length field: header and payload.
  @inlinable public var datagramLength: Int { UDPHeader.length &+ payloadLength }

  /// A header with these fields and no checksum yet.
  @inlinable
  public init(sourcePort: UInt16, destinationPort: UInt16, payloadLength: Int) {
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.payloadLength = payloadLength
    self.checksum = 0
  }

  /// Reads and checks the datagram at `offset`, for which the network header leaves `available` bytes.
  ///
  /// A length below `available` is legal, what is behind it is not part of the datagram; a checksum of zero says that none
  /// was computed. Throws `truncated` if the bytes are not there, `udpLength`, and `udpChecksum`.
  @inlinable
  public init(
    decoding bytes: RawSpan, at offset: Int = 0, available: Int, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard bytes.holds(available, at: offset) else { throw .truncated }
    guard available >= UDPHeader.length else { throw .udpLength }
    let word = bytes.loadUInt64(at: offset)
    sourcePort = UInt16(truncatingIfNeeded: word >> 48)
    destinationPort = UInt16(truncatingIfNeeded: word >> 32)
    checksum = UInt16(truncatingIfNeeded: word)
    let length = Int(truncatingIfNeeded: (word >> 16) & 0xFFFF)
    guard length >= UDPHeader.length, length <= available else { throw .udpLength }
    payloadLength = length &- UDPHeader.length
    if checksum != 0 {
      // The length counts twice: in the header, and in the pseudo-header that the caller has summed without it.
      var sum = pseudoHeader
      sum.add(word)
      sum.add(UInt16(truncatingIfNeeded: length))
      sum.add(bytes.extracting((offset &+ UDPHeader.length)..<(offset &+ length)))
      guard sum.isValid else { throw .udpChecksum }
    }
  }

  /// The header of an answer with the same payload: ports exchanged.
  ///
  /// If source and destination address are exchanged as well, the checksum of the datagram stays right, because a sum does
  /// not depend on the order of its terms; so a checksum that was verified is kept.
  @inlinable public var reversed: UDPHeader {
    var header = self
    header.sourcePort = destinationPort
    header.destinationPort = sourcePort
    return header
  }

  /// Writes the header at `offset` with the checksum it has. Throws `truncated` if it does not fit and `payloadTooLong`;
  /// then nothing is written.
  @inlinable
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(UDPHeader.length, at: offset) else { throw .truncated }
    guard payloadLength >= 0, payloadLength <= UDPHeader.maximumPayloadLength else { throw .payloadTooLong }
    bytes.storeUInt64(word | UInt64(checksum), at: offset)
  }

  /// Writes the header at `offset`, in front of the payload that is already there, with a checksum over both.
  ///
  /// A checksum that comes out as zero is sent as 0xFFFF, the other zero of one's complement, because zero says that there is
  /// none (RFC 768). Throws `truncated` if header and payload are not inside the bytes and `payloadTooLong`; then nothing is
  /// written.
  @inlinable
  public func encode(
    into bytes: inout MutableRawSpan, at offset: Int = 0, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard payloadLength >= 0, payloadLength <= UDPHeader.maximumPayloadLength else { throw .payloadTooLong }
    guard bytes.holds(datagramLength, at: offset) else { throw .truncated }
    let word = word
    var sum = pseudoHeader
    sum.add(word)
    sum.add(UInt16(truncatingIfNeeded: datagramLength))
    sum.add(bytes.bytes.extracting((offset &+ UDPHeader.length)..<(offset &+ datagramLength)))
    bytes.storeUInt64(word | UInt64(sum.value == 0 ? 0xFFFF : sum.value), at: offset)
  }

  // The header as one number, with a checksum of zero.
  @inlinable var word: UInt64 {
    UInt64(sourcePort) << 48 | UInt64(destinationPort) << 32
      | UInt64(truncatingIfNeeded: datagramLength & 0xFFFF) << 16
  }
}
