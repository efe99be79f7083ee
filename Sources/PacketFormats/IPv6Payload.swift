/// What an IPv6 packet carries behind its extension headers (RFC 8200 §4).
///
/// Extension headers are walked, not kept: a host that answers packets needs to know where they end, and whether one of them
/// forbids it to go on. Each is at least eight bytes long, so the walk is no longer than the packet, whatever it says.
@frozen
public struct IPv6Payload: Sendable, Hashable {
  /// What is carried: the first number that is none of an extension header known here.
  public let `protocol`: IPProtocol
  /// Where it starts, in the bytes that were walked.
  public let offset: Int
  /// How many bytes belong to the packet from there on.
  public let length: Int
  /// Whether a fragment header stood before it, which said that nothing is missing (an atomic fragment, RFC 6946).
  public let hasFragmentHeader: Bool

  /// Walks the extension headers of the packet at `offset`, whose header is `header` as decoded there.
  ///
  /// * Hop-by-hop options may stand only behind the IPv6 header itself (§4.1); all else is taken in any order and number.
  /// * Options that are not known are skipped or end the walk, as their highest two bits say (§4.2).
  /// * A routing header of any type is skipped once it has no segments left (§4.4), type 0 too (RFC 5095 §3).
  /// * Authentication and encryption (RFC 4302, RFC 4303) are protocols to this walk: it ends at them.
  ///
  /// Throws `truncated` if the packet is not inside the bytes, `ipExtensionHeader`, `ipOptions`, `ipUnknownOption`,
  /// `ipSourceRoute` for a routing header that wants the packet sent on, and `ipFragment` for a piece of a packet.
  @inlinable @inline(__always)
  public init(decoding bytes: RawSpan, at offset: Int = 0, header: IPv6Header) throws(PacketFormatError) {
    guard bytes.holds(IPv6Header.length, at: offset) else {
      throw .truncated(IPv6Header.length, at: offset, of: bytes.byteCount)
    }
    let start = offset &+ IPv6Header.length
    guard bytes.holds(header.payloadLength, at: start) else {
      throw .truncated(header.payloadLength, at: start, of: bytes.byteCount)
    }
    if header.nextHeader == .udp || header.nextHeader == .icmpv6 {
      `protocol` = header.nextHeader
      self.offset = start
      length = header.payloadLength
      hasFragmentHeader = false
    } else {
      self = try IPv6Payload(walking: bytes, from: start, to: start &+ header.payloadLength, header.nextHeader)
    }
  }

  @usableFromInline
  init(
    walking bytes: RawSpan, from start: Int, to end: Int, _ first: IPProtocol
  ) throws(PacketFormatError) {
    var next = first
    var position = start
    var hasFragmentHeader = false
    walk: while true {
      // All four have the next header in their first byte; all but the fragment header have their length in the second.
      switch next {
      case .ipv6HopByHop, .ipv6DestinationOptions:
        guard next != .ipv6HopByHop || position == start else {
          throw PacketFormatError(.ipExtensionHeader, .ipProtocol(next))
        }
        let length = try IPv6Payload.headerLength(bytes, at: position, end: end)
        try IPv6Payload.checkOptions(bytes, from: position &+ 2, to: position &+ length)
        next = IPProtocol(rawValue: bytes.loadUInt8(inside: position))
        position &+= length
      case .ipv6Routing:
        let length = try IPv6Payload.headerLength(bytes, at: position, end: end)
        let segmentsLeft = bytes.loadUInt8(inside: position &+ 3)
        guard segmentsLeft == 0 else { throw PacketFormatError(.ipSourceRoute, .number(UInt64(segmentsLeft))) }
        next = IPProtocol(rawValue: bytes.loadUInt8(inside: position))
        position &+= length
      case .ipv6Fragment:
        guard end &- position >= 8 else { throw PacketFormatError(.ipExtensionHeader) }
        // Thirteen bits of offset, two reserved, and whether more fragments follow.
        let fragment = bytes.loadUInt16(inside: position &+ 2)
        guard fragment & 0xFFF9 == 0 else { throw PacketFormatError(.ipFragment, .number(UInt64(fragment))) }
        hasFragmentHeader = true
        next = IPProtocol(rawValue: bytes.loadUInt8(inside: position))
        position &+= 8
      default:
        break walk
      }
    }
    `protocol` = next
    offset = position
    length = end &- position
    self.hasFragmentHeader = hasFragmentHeader
  }

  /// Bytes of the extension header at `position`: inside the packet, and at least eight.
  private static func headerLength(_ bytes: RawSpan, at position: Int, end: Int) throws(PacketFormatError) -> Int {
    guard end &- position >= 8 else { throw PacketFormatError(.ipExtensionHeader) }
    let length = (Int(bytes.loadUInt8(inside: position &+ 1)) &+ 1) &* 8
    guard length <= end &- position else {
      throw PacketFormatError(.ipExtensionHeader, .length(length, limit: end &- position))
    }
    return length
  }

  /// Walks the options between two places inside the packet.
  private static func checkOptions(_ bytes: RawSpan, from start: Int, to end: Int) throws(PacketFormatError) {
    var position = start
    while position < end {
      let kind = bytes.loadUInt8(inside: position)
      guard kind != 0 else {  // Pad1, the option of a single byte.
        position &+= 1
        continue
      }
      guard end &- position >= 2 else { throw PacketFormatError(.ipOptions) }
      let length = Int(bytes.loadUInt8(inside: position &+ 1))
      guard length <= end &- position &- 2 else {
        throw PacketFormatError(.ipOptions, .length(length, limit: end &- position &- 2))
      }
      // Of the options that may not be skipped (§4.2) none is known here: not the jumbo payload, nor the home address.
      guard kind >> 6 == 0 else { throw PacketFormatError(.ipUnknownOption, .number(UInt64(kind))) }
      position &+= length &+ 2
    }
  }
}
