/// An IPv4 header (RFC 791 §3.1), decoded by value.
///
/// Decoding reads the header once, checks what RFC 1122 §3.2.1 asks (version, lengths, checksum) and hands out plain
/// values, so that a peer that changes the bytes afterwards changes nothing that was checked. Options are not part of the
/// value: `headerLength` says where they end, ``IPv4Options`` judges them. Encoding writes a header without options.
@frozen
public struct IPv4Header: Sendable, Hashable {
  /// Bytes of a header without options.
  public static var minimumLength: Int { @inlinable get { 20 } }
  /// The longest payload that the 16-bit total length leaves behind a header without options.
  public static var maximumPayloadLength: Int { @inlinable get { 65515 } }

  /// Bytes of the decoded header with its options, 20 to 60; encoding always writes 20.
  public let headerLength: Int
  /// Bytes behind the header that belong to the packet, without Ethernet padding.
  public var payloadLength: Int
  /// Differentiated services code point and, in the lowest two bits, ECN (RFC 2474, RFC 3168).
  public var trafficClass: UInt8
  /// Groups the fragments of one packet; of no meaning in a packet that is not, and must not be, fragmented (RFC 6864).
  public var identification: UInt16
  /// The 16 bits of flags and fragment offset as on the wire.
  public var fragmentField: UInt16
  /// How many routers the packet may still pass.
  public var timeToLive: UInt8
  /// What the payload is.
  public var `protocol`: IPProtocol
  /// Who sent the packet.
  public var source: IPv4Address
  /// Who the packet is for.
  public var destination: IPv4Address

  /// The whole packet in bytes: header and payload.
  @inlinable public var totalLength: Int { headerLength &+ payloadLength }
  /// Whether the packet is a piece of a larger one: more fragments follow, or the offset is not zero (RFC 791 §3.2).
  @inlinable public var isFragment: Bool { fragmentField & 0x3FFF != 0 }
  /// Whether options follow the first 20 bytes.
  @inlinable public var hasOptions: Bool { headerLength > IPv4Header.minimumLength }

  /// A header without options for a packet that is never fragmented: DF set, identification zero (RFC 6864 §4.1 leaves its
  /// value open in such packets). The time to live is 64 unless said otherwise (IANA's recommended default).
  @inlinable
  public init(
    source: IPv4Address, destination: IPv4Address, protocol: IPProtocol, payloadLength: Int, timeToLive: UInt8 = 64,
    trafficClass: UInt8 = 0
  ) {
    self.headerLength = IPv4Header.minimumLength
    self.payloadLength = payloadLength
    self.trafficClass = trafficClass
    self.identification = 0
    self.fragmentField = 0x4000
    self.timeToLive = timeToLive
    self.protocol = `protocol`
    self.source = source
    self.destination = destination
  }

  /// Reads and checks the header at `offset`; the packet may be followed by padding.
  ///
  /// Throws, in this order: `truncated` below 20 bytes, `ipVersion`, `ipHeaderLength`, `ipTotalLength`,
  /// `ipHeaderChecksum`. Addresses, options and fragmentation are left to the caller, who knows what they mean to it.
  @inlinable
  public init(decoding bytes: RawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(IPv4Header.minimumLength, at: offset) else { throw .truncated }
    let available = bytes.byteCount &- offset
    let first = bytes.loadUInt64(at: offset)
    let second = bytes.loadUInt64(at: offset &+ 8)
    let third = bytes.loadUInt32(at: offset &+ 16)

    guard first >> 60 == 4 else { throw .ipVersion }
    headerLength = Int(truncatingIfNeeded: (first >> 56) & 0xF) &* 4
    guard headerLength >= IPv4Header.minimumLength, headerLength <= available else { throw .ipHeaderLength }
    let totalLength = Int(truncatingIfNeeded: (first >> 32) & 0xFFFF)
    guard totalLength >= headerLength, totalLength <= available else { throw .ipTotalLength }

    // The words already read are those summed: what was checked is what is used.
    var checksum = InternetChecksum()
    checksum.add(first)
    checksum.add(second)
    checksum.add(third)
    if headerLength > IPv4Header.minimumLength {
      checksum.add(
        bytes.extracting((offset &+ IPv4Header.minimumLength)..<(offset &+ headerLength)))
    }
    guard checksum.isValid else { throw .ipHeaderChecksum }

    payloadLength = totalLength &- headerLength
    trafficClass = UInt8(truncatingIfNeeded: first >> 48)
    identification = UInt16(truncatingIfNeeded: first >> 16)
    fragmentField = UInt16(truncatingIfNeeded: first)
    timeToLive = UInt8(truncatingIfNeeded: second >> 56)
    `protocol` = IPProtocol(rawValue: UInt8(truncatingIfNeeded: second >> 48))
    source = IPv4Address(rawValue: UInt32(truncatingIfNeeded: second))
    destination = IPv4Address(rawValue: third)
  }

  /// Writes the header at `offset`, 20 bytes with its checksum; a decoded header loses its options.
  ///
  /// Throws `truncated` if the header does not fit and `payloadTooLong` if the total length would exceed 65535; then nothing
  /// is written. The payload itself is not looked at.
  @inlinable
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(IPv4Header.minimumLength, at: offset) else { throw .truncated }
    guard payloadLength >= 0, payloadLength <= IPv4Header.maximumPayloadLength else { throw .payloadTooLong }
    let totalLength = UInt64(truncatingIfNeeded: IPv4Header.minimumLength &+ payloadLength)
    let first =
      0x45 << 56 | UInt64(trafficClass) << 48 | totalLength << 32 | UInt64(identification) << 16 | UInt64(fragmentField)
    let second = UInt64(timeToLive) << 56 | UInt64(`protocol`.rawValue) << 48 | UInt64(source.rawValue)
    var checksum = InternetChecksum()
    checksum.add(first)
    checksum.add(second)
    checksum.add(destination.rawValue)
    bytes.storeUInt64(first, at: offset)
    bytes.storeUInt64(second | UInt64(checksum.value) << 32, at: offset &+ 8)
    bytes.storeUInt32(destination.rawValue, at: offset &+ 16)
  }

  /// The sum of the pseudo-header that transport checksums cover (RFC 768): both addresses and the protocol. The transport
  /// adds its own length, and another network protocol has another such sum: the transports need know neither.
  @inlinable public var pseudoHeader: InternetChecksum {
    var sum = InternetChecksum()
    sum.add(UInt64(source.rawValue) << 32 | UInt64(destination.rawValue))
    sum.add(UInt16(`protocol`.rawValue))
    return sum
  }
}
