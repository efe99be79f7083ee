/// An ICMP message for IPv4 (RFC 792): the eight bytes at its front, and the sum of all that follows.
///
/// Of its types only echo and echo reply are spelled out; the last four bytes of the header are theirs, `identifier` and
/// `sequenceNumber`, and mean other things in other messages.
@frozen
public struct ICMPv4Message: Sendable {
  /// Bytes of the header.
  public static var headerLength: Int { @inlinable get { 8 } }

  /// What the message says.
  @frozen
  public struct Kind: RawRepresentable, Sendable, Hashable {
    /// The number on the wire.
    public let rawValue: UInt8

    /// The type with this number.
    @inlinable
    public init(rawValue: UInt8) {
      self.rawValue = rawValue
    }

    /// "I heard you", with the data of the request.
    @inlinable public static var echoReply: Kind { Kind(rawValue: 0) }
    /// "Do you hear me?"
    @inlinable public static var echoRequest: Kind { Kind(rawValue: 8) }
  }

  /// What the message says.
  public let kind: Kind
  /// A further distinction within the type; 0 for echo.
  public let code: UInt8
  /// Tells the requests of one sender apart from those of another (echo).
  public let identifier: UInt16
  /// Counts the requests of one sender (echo).
  public let sequenceNumber: UInt16
  /// Bytes of the whole message, header and data.
  public let length: Int
  /// The sum of everything behind the checksum field.
  @usableFromInline let bodySum: InternetChecksum

  /// Reads and checks the message of `length` bytes at `offset`; `length` comes from the IP header.
  ///
  /// Throws `truncated` if the bytes are not there, `icmpLength` below eight bytes, and `icmpChecksum`.
  @inlinable @inline(__always)
  public init(decoding bytes: RawSpan, at offset: Int = 0, length: Int) throws(PacketFormatError) {
    guard bytes.holds(length, at: offset) else { throw .truncated(length, at: offset, of: bytes.byteCount) }
    guard length >= ICMPv4Message.headerLength else { throw PacketFormatError(.icmpLength, .length(length, limit: 8)) }
    let front = bytes.loadUInt32(inside: offset)
    let rest = bytes.loadUInt32(inside: offset &+ 4)
    var sum = InternetChecksum()
    sum.add(rest)
    sum.add(
      bytes.extracting((offset &+ ICMPv4Message.headerLength)..<(offset &+ length)))
    kind = Kind(rawValue: UInt8(truncatingIfNeeded: front >> 24))
    code = UInt8(truncatingIfNeeded: front >> 16)
    identifier = UInt16(truncatingIfNeeded: rest >> 16)
    sequenceNumber = UInt16(truncatingIfNeeded: rest)
    self.length = length
    bodySum = sum
    sum.add(front)
    guard sum.isValid else { throw PacketFormatError(.icmpChecksum) }
  }

  /// The checksum of the same message under another type and code, without reading it again.
  ///
  /// This is a fresh computation from the sum of the body, not an RFC 1624 update: an echo reply may be zeros throughout
  /// (identifier, sequence number and data), and only a fresh sum then ends at the right one of the two zeros.
  @inlinable @inline(__always)
  public func checksum(kind: Kind, code: UInt8 = 0) -> UInt16 {
    var sum = bodySum
    sum.add(UInt16(kind.rawValue) << 8 | UInt16(code))
    return sum.value
  }

  /// Turns the decoded message at `offset` into its echo reply: type, code and checksum change, the rest stays (RFC 792).
  /// Throws `truncated` if it is not there.
  @inlinable @inline(__always)
  public func encodeEchoReply(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(ICMPv4Message.headerLength, at: offset) else {
      throw .truncated(ICMPv4Message.headerLength, at: offset, of: bytes.byteCount)
    }
    storeEchoReply(into: &bytes, at: offset)
  }

  /// The same, where the caller knows that the message is there; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func storeEchoReply(into bytes: inout MutableRawSpan, at offset: Int) {
    bytes.storeUInt32(UInt32(checksum(kind: .echoReply)), inside: offset)
  }

  /// Writes the header of an echo message in front of `dataLength` bytes of data that are already there, and checksums both.
  /// Throws `truncated` if header and data are not inside the bytes; then nothing is written.
  @inlinable
  public static func encodeEcho(
    _ kind: Kind, identifier: UInt16, sequenceNumber: UInt16, dataLength: Int, into bytes: inout MutableRawSpan,
    at offset: Int = 0
  ) throws(PacketFormatError) {
    guard dataLength >= 0, bytes.holds(dataLength, at: offset), bytes.holds(dataLength &+ headerLength, at: offset)
    else { throw .truncated(max(dataLength, headerLength), at: offset, of: bytes.byteCount) }
    let front = UInt32(kind.rawValue) << 24
    let rest = UInt32(identifier) << 16 | UInt32(sequenceNumber)
    var sum = InternetChecksum()
    sum.add(front)
    sum.add(rest)
    sum.add(bytes.bytes.extracting((offset &+ headerLength)..<(offset &+ headerLength &+ dataLength)))
    bytes.storeUInt32(front | UInt32(sum.value), inside: offset)
    bytes.storeUInt32(rest, inside: offset &+ 4)
  }
}
