/// A neighbor solicitation or advertisement (RFC 4861 §4.3, §4.4): which address, and where it is on the link.
///
/// IPv6 has no ARP: this is what takes its place. Decoding makes all checks of §7.1.1 and §7.1.2 but those that depend on who
/// the receiver is.
@frozen
public struct NeighborMessage: Sendable, Hashable {
  /// Bytes of a message without options: the ICMP header and the target address.
  public static var minimumLength: Int { @inlinable get { 24 } }

  /// Whether this is an advertisement; if not, it is a solicitation.
  public let isAdvertisement: Bool
  /// Of an advertisement, whether it answers a solicitation of the receiver (the flag S).
  public let isSolicited: Bool
  /// The address that is asked for, or told of.
  public let target: IPv6Address
  /// The sender's Ethernet address in a solicitation, the target's in an advertisement, if the message says it.
  public let hardwareAddress: MACAddress?

  /// Reads and checks the message that ``ICMPv6Message`` found at the start of `payload`.
  ///
  /// - Parameters:
  ///   - bytes: The bytes that `payload` was found in.
  ///   - header: The header of the packet.
  ///   - payload: What the packet carries.
  ///   - message: The message, its checksum verified, of one of the two types.
  /// - Throws: `otherProtocol` for another type, `truncated` if the message is not inside the bytes, `neighborFragment`,
  ///   `neighborHopLimit`, `icmpCode`, `icmpLength`, `neighborTarget`, `neighborOptions`, `neighborSource`, `neighborFlags`.
  public init(
    decoding bytes: RawSpan, header: IPv6Header, payload: IPv6Payload, message: ICMPv6Message
  ) throws(PacketFormatError) {
    guard message.kind == .neighborSolicitation || message.kind == .neighborAdvertisement else {
      throw PacketFormatError(.otherProtocol, .number(UInt64(message.kind.rawValue)))
    }
    guard bytes.holds(message.length, at: payload.offset) else {
      throw .truncated(message.length, at: payload.offset, of: bytes.byteCount)
    }
    guard !payload.hasFragmentHeader else { throw PacketFormatError(.neighborFragment) }
    // Every router takes one off: nobody beyond this link can send 255.
    guard header.hopLimit == 255 else { throw PacketFormatError(.neighborHopLimit, .number(UInt64(header.hopLimit))) }
    guard message.code == 0 else { throw PacketFormatError(.icmpCode, .number(UInt64(message.code))) }
    guard message.length >= NeighborMessage.minimumLength else {
      throw PacketFormatError(.icmpLength, .length(NeighborMessage.minimumLength, limit: message.length))
    }
    let high = bytes.loadUInt64(inside: payload.offset &+ 8)
    target = IPv6Address(high: high, low: bytes.loadUInt64(inside: payload.offset &+ 16))
    guard !target.isMulticast else { throw PacketFormatError(.neighborTarget, .ipv6(target)) }
    isAdvertisement = message.kind == .neighborAdvertisement
    isSolicited = isAdvertisement && message.rest & 0x4000_0000 != 0
    // A solicitation names its source in option 1, an advertisement its target in option 2 (§4.6.1).
    hardwareAddress = try NeighborMessage.hardwareAddress(
      in: bytes, from: payload.offset &+ NeighborMessage.minimumLength, to: payload.offset &+ message.length,
      option: isAdvertisement ? 2 : 1)
    if isAdvertisement {
      guard !isSolicited || !header.destination.isMulticast else {
        throw PacketFormatError(.neighborFlags, .ipv6(header.destination))
      }
    } else if header.source.isUnspecified {
      guard header.destination.isSolicitedNode, hardwareAddress == nil else {
        throw PacketFormatError(.neighborSource, .ipv6(header.destination))
      }
    }
  }

  /// Walks the options between two places inside the message; of several of the kind wanted the first counts, others are
  /// skipped (§4.6). Each is at least eight bytes long, so the walk ends.
  private static func hardwareAddress(
    in bytes: RawSpan, from start: Int, to end: Int, option: UInt8
  ) throws(PacketFormatError) -> MACAddress? {
    var address: MACAddress?
    var position = start
    while position < end {
      guard end &- position >= 8 else { throw PacketFormatError(.neighborOptions) }
      let length = Int(bytes.loadUInt8(inside: position &+ 1)) &* 8
      guard length >= 8, length <= end &- position else {
        throw PacketFormatError(.neighborOptions, .length(length, limit: end &- position))
      }
      if bytes.loadUInt8(inside: position) == option {
        // An Ethernet address fills one unit of eight bytes (RFC 2464 §6).
        guard length == 8 else { throw PacketFormatError(.neighborOptions) }
        if address == nil { address = MACAddress(decoding: bytes, at: position &+ 2) }
      }
      position &+= length
    }
    return address
  }
}

/// A neighbor advertisement to be sent (RFC 4861 §4.4), always with the option that names the target's Ethernet address.
@frozen
public struct NeighborAdvertisement: Sendable, Hashable {
  /// Bytes on the wire: the ICMP header, the target address, the option.
  public static var length: Int { @inlinable get { 32 } }
  /// The hop limit that its packet must have (§7.1.2).
  public static var hopLimit: UInt8 { @inlinable get { 255 } }

  /// The address told of.
  public var target: IPv6Address
  /// Where it is on the link.
  public var hardwareAddress: MACAddress
  /// Whether it answers a solicitation with a source address (the flag S); not to be set in a message to a group.
  public var isSolicited: Bool

  /// An advertisement of a host, which is no router (R clear) and means what it says to replace what is known (O set).
  @inlinable
  public init(target: IPv6Address, hardwareAddress: MACAddress, isSolicited: Bool) {
    self.target = target
    self.hardwareAddress = hardwareAddress
    self.isSolicited = isSolicited
  }

  /// Writes the message at `offset` with its checksum. Throws `truncated` if it does not fit; then nothing is written.
  @inlinable
  public func encode(
    into bytes: inout MutableRawSpan, at offset: Int = 0, pseudoHeader: InternetChecksum
  ) throws(PacketFormatError) {
    guard bytes.holds(NeighborAdvertisement.length, at: offset) else {
      throw .truncated(NeighborAdvertisement.length, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset, pseudoHeader: pseudoHeader)
  }

  /// Writes the message where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable
  package func store(into bytes: inout MutableRawSpan, at offset: Int, pseudoHeader: InternetChecksum) {
    bytes.storeUInt32(isSolicited ? 0x6000_0000 : 0x2000_0000, inside: offset &+ 4)
    bytes.storeUInt64(target.high, inside: offset &+ 8)
    bytes.storeUInt64(target.low, inside: offset &+ 16)
    // Option 2, target link-layer address, one unit of eight bytes.
    bytes.storeUInt64(0x0201 << 48 | hardwareAddress.rawValue, inside: offset &+ 24)
    ICMPv6Message.storeFront(
      .neighborAdvertisement, into: &bytes, at: offset, length: NeighborAdvertisement.length,
      pseudoHeader: pseudoHeader)
  }
}
