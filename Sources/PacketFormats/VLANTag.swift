/// A VLAN tag (IEEE 802.1Q §9): the four bytes between the addresses of a frame and its type.
///
/// A tag of a customer's network has the type 0x8100; a provider puts its own in front of it, of type 0x88A8 (IEEE 802.1ad).
/// Pushing and popping moves the twelve bytes of the addresses and nothing else:
///
///     let tag = try VLANTag(identifier: 100)
///     try tag.push(into: &bytes)      // the frame began at byte 4; now it begins at 0
///     let popped = VLANTag.pop(from: &bytes)  // and now at 4 again
@frozen
public struct VLANTag: Sendable, Hashable {
  /// Bytes on the wire.
  public static var length: Int { @inlinable get { 4 } }
  /// Where a frame has its first tag: behind both addresses.
  public static var offset: Int { @inlinable get { 12 } }

  /// The type that says that a tag is here.
  public let etherType: EtherType
  /// The two bytes behind the type: three bits of priority, one for frames to be dropped first, twelve of the identifier.
  public let control: UInt16

  /// The virtual network; 0 says that the tag is there for its priority only, 4095 is reserved.
  @inlinable public var identifier: UInt16 { control & 0xFFF }
  /// The priority code point, 0 to 7.
  @inlinable public var priority: UInt8 { UInt8(truncatingIfNeeded: control >> 13) }
  /// Whether the frame is among the first to go where there is no room.
  @inlinable public var isDropEligible: Bool { control & 0x1000 != 0 }

  /// A tag with these fields.
  ///
  /// - Throws: `vlanIdentifier` above 4094, or for a priority above 7; `otherProtocol` for a type that is none of a tag.
  @inlinable
  public init(
    identifier: UInt16, priority: UInt8 = 0, isDropEligible: Bool = false, etherType: EtherType = .customerTag
  ) throws(PacketFormatError) {
    guard identifier <= 4094 else { throw PacketFormatError(.vlanIdentifier, .number(UInt64(identifier))) }
    guard priority <= 7 else { throw PacketFormatError(.vlanIdentifier, .number(UInt64(priority))) }
    guard etherType.isVLANTag else { throw PacketFormatError(.otherProtocol, .etherType(etherType)) }
    self.init(
      etherType: etherType, control: UInt16(priority) << 13 | (isDropEligible ? 0x1000 : 0) | identifier)
  }

  /// A tag as it stands on the wire.
  @inlinable
  init(etherType: EtherType, control: UInt16) {
    self.etherType = etherType
    self.control = control
  }

  /// Reads the tag at `offset`, which is the first of the frame unless said otherwise; nothing where there is none, or not
  /// all of it.
  @inlinable
  public init?(decoding bytes: RawSpan, at offset: Int = VLANTag.offset) {
    guard bytes.holds(VLANTag.length, at: offset) else { return nil }
    let word = bytes.loadUInt32(inside: offset)
    let type = EtherType(rawValue: UInt16(truncatingIfNeeded: word >> 16))
    guard type.isVLANTag else { return nil }
    self.init(etherType: type, control: UInt16(truncatingIfNeeded: word))
  }

  /// Puts the tag into the frame that begins four bytes into `bytes`; it begins at the first byte then.
  ///
  /// - Throws: `truncated` if there are no four bytes and two addresses; then nothing is written.
  @inlinable
  public func push(into bytes: inout MutableRawSpan) throws(PacketFormatError) {
    let needed = VLANTag.length &+ VLANTag.offset
    guard bytes.holds(needed, at: 0) else { throw .truncated(needed, at: 0, of: bytes.byteCount) }
    let front = bytes.bytes.loadUInt64(inside: 4)
    let back = bytes.bytes.loadUInt32(inside: 12)
    bytes.storeUInt64(front, inside: 0)
    bytes.storeUInt32(back, inside: 8)
    bytes.storeUInt32(UInt32(etherType.rawValue) << 16 | UInt32(control), inside: VLANTag.offset)
  }

  /// Takes the first tag off the frame that begins at the first byte; it begins four bytes later then.
  ///
  /// - Returns: the tag; nothing for a frame without one, which stays as it is.
  @inlinable
  public static func pop(from bytes: inout MutableRawSpan) -> VLANTag? {
    guard let tag = VLANTag(decoding: bytes.bytes) else { return nil }
    // The tag was found behind the addresses, so they are there.
    let front = bytes.bytes.loadUInt64(inside: 0)
    let back = bytes.bytes.loadUInt32(inside: 8)
    bytes.storeUInt64(front, inside: 4)
    bytes.storeUInt32(back, inside: 12)
    return tag
  }
}

extension VLANTag: CustomStringConvertible {
  /// As tcpdump says it: `vlan 100, p 0`, with `, DEI` where that bit is set.
  public var description: String {
    "vlan \(identifier), p \(priority)\(isDropEligible ? ", DEI" : "")"
  }
}
