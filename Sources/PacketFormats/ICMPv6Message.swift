/// An ICMP message for IPv6 (RFC 4443): the eight bytes at its front, and the sum of all that follows.
///
/// Of its types only those are spelled out that a host needs to be reached: echo and neighbor discovery. The last four bytes of
/// the header are theirs; `identifier` and `sequenceNumber` are the two halves of them in an echo message.
@frozen
public struct ICMPv6Message: Sendable {
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

    /// "Do you hear me?" (RFC 4443 §4.1).
    @inlinable public static var echoRequest: Kind { Kind(rawValue: 128) }
    /// "I heard you", with the data of the request (RFC 4443 §4.2).
    @inlinable public static var echoReply: Kind { Kind(rawValue: 129) }
    /// "Who has the target address?" (RFC 4861 §4.3).
    @inlinable public static var neighborSolicitation: Kind { Kind(rawValue: 135) }
    /// "The target address is here." (RFC 4861 §4.4).
    @inlinable public static var neighborAdvertisement: Kind { Kind(rawValue: 136) }
  }

  /// What the message says.
  public let kind: Kind
  /// A further distinction within the type; 0 for echo and neighbor discovery.
  public let code: UInt8
  /// The last four bytes of the header, whose meaning is the type's.
  public let rest: UInt32
  /// Bytes of the whole message, header and data.
  public let length: Int
  /// The sum of everything behind the checksum field, without the pseudo-header.
  @usableFromInline let bodySum: InternetChecksum

  /// Tells the requests of one sender apart from those of another (echo).
  @inlinable public var identifier: UInt16 { UInt16(truncatingIfNeeded: rest >> 16) }
  /// Counts the requests of one sender (echo).
  @inlinable public var sequenceNumber: UInt16 { UInt16(truncatingIfNeeded: rest) }

  /// Reads and checks the message of `length` bytes at `offset`; `length` is what the extension headers leave of the packet.
  ///
  /// Throws `truncated` if the bytes are not there, `icmpLength` below eight bytes, and `icmpChecksum` (§2.3: over the
  /// pseudo-header too, unlike that of IPv4).
  @inlinable @inline(__always)
  public init(
    decoding bytes: RawSpan, at offset: Int = 0, length: Int, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard bytes.holds(length, at: offset) else { throw .truncated(length, at: offset, of: bytes.byteCount) }
    guard length >= ICMPv6Message.headerLength else { throw PacketFormatError(.icmpLength, .length(length, limit: 8)) }
    let front = bytes.loadUInt32(inside: offset)
    rest = bytes.loadUInt32(inside: offset &+ 4)
    var sum = InternetChecksum()
    sum.add(rest)
    sum.add(
      bytes.extracting((offset &+ ICMPv6Message.headerLength)..<(offset &+ length)))
    kind = Kind(rawValue: UInt8(truncatingIfNeeded: front >> 24))
    code = UInt8(truncatingIfNeeded: front >> 16)
    self.length = length
    bodySum = sum
    sum.add(front)
    // Sums of whole words: the body may have been odd, and these come behind it, but they stand at even places.
    sum.add(pseudoHeader, length: length)
    guard sum.isValid else { throw PacketFormatError(.icmpChecksum) }
  }

  /// Turns the decoded message at `offset` into its echo reply: type, code and checksum change, the rest stays.
  ///
  /// - Parameters:
  ///   - bytes: the frame, or what of it is to be changed.
  ///   - offset: where the message begins in it.
  ///   - pseudoHeader: that of the reply, whose source may be another than the request's destination.
  /// - Throws: `truncated` if the message is not there.
  @inlinable @inline(__always)
  public func encodeEchoReply(
    into bytes: inout MutableRawSpan, at offset: Int = 0, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard bytes.holds(ICMPv6Message.headerLength, at: offset) else {
      throw .truncated(ICMPv6Message.headerLength, at: offset, of: bytes.byteCount)
    }
    storeEchoReply(into: &bytes, at: offset, pseudoHeader: pseudoHeader)
  }

  /// The same, where the caller knows that the message is there; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func storeEchoReply(into bytes: inout MutableRawSpan, at offset: Int, pseudoHeader: InternetChecksum) {
    let front = UInt32(Kind.echoReply.rawValue) << 24
    var sum = bodySum
    sum.add(front)
    sum.add(pseudoHeader, length: length)
    bytes.storeUInt32(front | UInt32(sum.value), inside: offset)
  }

  /// Writes the header of an echo message in front of `dataLength` bytes of data that are already there, and checksums both.
  /// Throws `truncated` if header and data are not inside the bytes; then nothing is written.
  @inlinable
  public static func encodeEcho(
    _ kind: Kind, identifier: UInt16, sequenceNumber: UInt16, dataLength: Int, into bytes: inout MutableRawSpan,
    at offset: Int = 0, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard dataLength >= 0, bytes.holds(dataLength, at: offset), bytes.holds(dataLength &+ headerLength, at: offset)
    else { throw .truncated(max(dataLength, headerLength), at: offset, of: bytes.byteCount) }
    bytes.storeUInt32(UInt32(identifier) << 16 | UInt32(sequenceNumber), inside: offset &+ 4)
    storeFront(kind, into: &bytes, at: offset, length: dataLength &+ headerLength, pseudoHeader: pseudoHeader)
  }

  /// Writes type, code 0 and checksum in front of a message that is otherwise complete and inside the bytes.
  @inlinable
  static func storeFront(
    _ kind: Kind, into bytes: inout MutableRawSpan, at offset: Int, length: Int, pseudoHeader: InternetChecksum
  ) {
    let front = UInt32(kind.rawValue) << 24
    var sum = InternetChecksum()
    sum.add(front)
    sum.add(bytes.bytes.extracting((offset &+ 4)..<(offset &+ length)))
    sum.add(pseudoHeader, length: length)
    bytes.storeUInt32(front | UInt32(sum.value), inside: offset)
  }
}

extension InternetChecksum {
  /// Adds the sum of a pseudo-header, and the length of the message that goes into it (RFC 8200 §8.1).
  @inlinable @inline(__always)
  mutating func add(_ pseudoHeader: InternetChecksum, length: Int) {
    add(pseudoHeader.sum)
    add(UInt64(truncatingIfNeeded: length))
  }
}
