/// A frame with a packet of IPv4 or IPv6, to be changed in place by somebody who passes it on: a router or a translator.
///
/// Making the view walks the headers once and checks what it then relies on; VLAN tags, options, extension headers and fragments
/// may be there. Every change brings the checksums along by what changed (RFC 1624), without reading the payload, so that a
/// checksum that was wrong stays wrong and the receiver sees it.
///
///     packet.withMutableBytes { bytes in
///       var frame = try MutableInternetFrame(&bytes)
///       guard frame.decrementHopLimit() else { return }    // answer with "time exceeded"
///       try frame.setSource(outside)                       // address translation
///       try frame.setSourcePort(40_000)
///       frame.setStations(source: own, destination: nextHop)
///     }
///
/// A packet in fragments has the checksum of its transport in the first of them, and its ports: an address is changed in every fragment,
/// and that checksum follows with the first.
///
/// Whatever a peer writes to the bytes meanwhile, the places that were checked stay the places that are written.
public struct MutableInternetFrame: ~Copyable, ~Escapable {
  @usableFromInline var bytes: MutableRawSpan
  /// Addresses, tags and type of the frame as they were when the view was made.
  public let header: TaggedHeader
  /// Whether the packet is one of IPv6; else it is one of IPv4.
  public let isIPv6: Bool
  @usableFromInline let place: TransportPlace

  /// A view of the frame that fills `bytes`, or begins them and is followed by padding.
  ///
  /// - Throws: what ``TaggedHeader`` and ``IPv4Header`` or ``IPv6Header`` throw, a wrong header checksum among it;
  ///   `otherProtocol` for a frame with neither.
  @_lifetime(&bytes)
  public init(_ bytes: inout MutableRawSpan) throws(PacketFormatError) {
    let header = try TaggedHeader(decoding: bytes.bytes)
    switch header.etherType {
    case .ipv4:
      let ip = try IPv4Header(decoding: bytes.bytes, at: header.length)
      place = TransportPlace(ip, in: bytes.bytes, at: header.length)
      isIPv6 = false
    case .ipv6:
      let ip = try IPv6Header(decoding: bytes.bytes, at: header.length)
      place = TransportPlace(ip, in: bytes.bytes, at: header.length)
      isIPv6 = true
    default:
      throw PacketFormatError(.otherProtocol, .etherType(header.etherType))
    }
    self.header = header
    self.bytes = bytes._mutatingExtracting(0..<bytes.byteCount)
  }
}

// MARK: - Reading

// Every offset below is inside, because the header of its packet was found there.
extension MutableInternetFrame {
  @usableFromInline var start: Int { header.length }

  /// What the packet carries.
  public var transport: IPProtocol { place.protocol }

  /// Whether the packet is a piece of another.
  public var isFragment: Bool { place.isFragment }

  /// Who sent the packet.
  public var source: IPAddress { address(at: isIPv6 ? 8 : 12) }

  /// Who the packet is for.
  public var destination: IPAddress { address(at: isIPv6 ? 24 : 16) }

  /// How many routers the packet may still pass: the time to live of IPv4, the hop limit of IPv6.
  public var hopLimit: UInt8 { bytes.bytes.loadUInt8(inside: start &+ (isIPv6 ? 7 : 8)) }

  /// The port that the packet comes from; nil for what has no ports, and for a fragment without them.
  public var sourcePort: UInt16? { ports.map { bytes.bytes.loadUInt16(inside: $0) } }

  /// The port that the packet is for; nil for what has no ports, and for a fragment without them.
  public var destinationPort: UInt16? { ports.map { bytes.bytes.loadUInt16(inside: $0 &+ 2) } }

  /// The identifier of an ICMP echo request or reply, which takes the place of ports; nil for everything else.
  public var echoIdentifier: UInt16? { echo.map { bytes.bytes.loadUInt16(inside: $0 &+ 4) } }

  private func address(at offset: Int) -> IPAddress {
    let place = start &+ offset
    guard isIPv6 else { return .v4(IPv4Address(rawValue: bytes.bytes.loadUInt32(inside: place))) }
    let high = bytes.bytes.loadUInt64(inside: place)
    return .v6(IPv6Address(high: high, low: bytes.bytes.loadUInt64(inside: place &+ 8)))
  }

  /// Where the two ports are, if there are such and all of the checksum that covers them is there.
  private var ports: Int? {
    guard let offset = place.offset, place.protocol == .tcp || place.protocol == .udp,
      let checksum = place.addressChecksum, checksum &+ 2 <= place.end
    else { return nil }
    return offset
  }

  /// Where the message of ICMP echo begins, if it is one.
  private var echo: Int? {
    guard let offset = place.offset, offset &+ ICMPv4Message.headerLength <= place.end else { return nil }
    let kind = bytes.bytes.loadUInt8(inside: offset)
    if place.protocol == .icmpv4, !isIPv6 { return kind == 8 || kind == 0 ? offset : nil }
    if place.protocol == .icmpv6, isIPv6 { return kind == 128 || kind == 129 ? offset : nil }
    return nil
  }
}

// MARK: - Changing

extension MutableInternetFrame {
  /// Writes the addresses of the stations: to whom the frame goes next, and from whom.
  @_lifetime(self: copy self)
  public mutating func setStations(source: MACAddress, destination: MACAddress) {
    bytes.storeUInt64(destination.rawValue << 16 | source.rawValue >> 32, inside: 0)
    bytes.storeUInt32(UInt32(truncatingIfNeeded: source.rawValue), inside: 8)
  }

  /// Takes one off the time to live or the hop limit.
  ///
  /// - Returns: false when nothing would be left, and the frame stays as it is: it must not be passed on, and its sender is to
  ///   be told (RFC 1812 §5.3.1, RFC 4443 §3.3).
  @_lifetime(self: copy self)
  public mutating func decrementHopLimit() -> Bool {
    let limit = hopLimit
    guard limit > 1 else { return false }
    guard !isIPv6 else {
      bytes.storeUInt8(limit &- 1, inside: start &+ 7)
      return true
    }
    // The time to live is the upper half of a word whose lower half is the protocol.
    let old = bytes.bytes.loadUInt16(inside: start &+ 8)
    let new = old &- 0x0100
    bytes.storeUInt16(new, inside: start &+ 8)
    replaceInHeaderChecksum(UInt32(old), UInt32(new))
    return true
  }

  /// Writes another source address of IPv4.
  ///
  /// - Throws: `ipVersion` in a packet of IPv6; `truncated` in a first fragment that ends before the checksum which covers it.
  @_lifetime(self: copy self)
  public mutating func setSource(_ address: IPv4Address) throws(PacketFormatError) { try replace(12, address) }

  /// Writes another destination address of IPv4.
  ///
  /// - Throws: `ipVersion` in a packet of IPv6; `truncated` in a first fragment that ends before the checksum which covers it;
  ///   `ipSourceRoute` where an option has the last destination, which is the one that the checksum covers.
  @_lifetime(self: copy self)
  public mutating func setDestination(_ address: IPv4Address) throws(PacketFormatError) {
    guard !place.hasOpenRoute else { throw PacketFormatError(.ipSourceRoute) }
    try replace(16, address)
  }

  /// Writes another source address of IPv6.
  ///
  /// - Throws: `ipVersion` in a packet of IPv4; `truncated` in a first fragment that ends before the checksum which covers it.
  @_lifetime(self: copy self)
  public mutating func setSource(_ address: IPv6Address) throws(PacketFormatError) { try replace(8, address) }

  /// Writes another destination address of IPv6.
  ///
  /// - Throws: `ipVersion` in a packet of IPv4; `truncated` in a first fragment that ends before the checksum which covers it;
  ///   `ipSourceRoute` where a routing header has the last destination, which is the one that the checksum covers.
  @_lifetime(self: copy self)
  public mutating func setDestination(_ address: IPv6Address) throws(PacketFormatError) {
    guard !place.hasOpenRoute else { throw PacketFormatError(.ipSourceRoute) }
    try replace(24, address)
  }

  /// Writes another source port of TCP or UDP.
  ///
  /// - Throws: `otherProtocol` where there are no ports, a fragment without them included.
  @_lifetime(self: copy self)
  public mutating func setSourcePort(_ port: UInt16) throws(PacketFormatError) { try replacePort(0, port) }

  /// Writes another destination port of TCP or UDP.
  ///
  /// - Throws: `otherProtocol` where there are no ports, a fragment without them included.
  @_lifetime(self: copy self)
  public mutating func setDestinationPort(_ port: UInt16) throws(PacketFormatError) { try replacePort(2, port) }

  /// Writes another identifier of an ICMP echo request or reply.
  ///
  /// - Throws: `otherProtocol` for everything else.
  @_lifetime(self: copy self)
  public mutating func setEchoIdentifier(_ identifier: UInt16) throws(PacketFormatError) {
    guard let echo else { throw PacketFormatError(.otherProtocol, .ipProtocol(place.protocol)) }
    let old = bytes.bytes.loadUInt16(inside: echo &+ 4)
    guard identifier != old else { return }
    let checksum = bytes.bytes.loadUInt16(inside: echo &+ 2)
    var updated = InternetChecksum.updated(checksum, replacing: old, with: identifier)
    // One's complement has two zeros. A message of IPv4 covers no pseudo-header and may be zeros but for its identifier; the
    // right checksum of nothing but zeros is 0xFFFF, and zero is a wrong one, which the sum of differences cannot tell apart.
    if old == 0 ? checksum == 0 : identifier == 0 && updated == 0, isZeroBesideIdentifier(echo) {
      updated = old == 0 ? ~identifier ^ 1 : 0xFFFF
    }
    bytes.storeUInt16(identifier, inside: echo &+ 4)
    bytes.storeUInt16(updated, inside: echo &+ 2)
  }

  /// Whether a whole message of IPv4 is nothing but zeros, its checksum and its identifier aside. Of a message in fragments
  /// nobody here can tell.
  private func isZeroBesideIdentifier(_ echo: Int) -> Bool {
    guard !isIPv6, !place.isFragment else { return false }
    var sum = InternetChecksum()
    sum.add(bytes.bytes.loadUInt16(inside: echo))
    sum.add(bytes.bytes.extracting((echo &+ 6)..<place.end))
    return sum.folded == 0
  }

  @_lifetime(self: copy self)
  private mutating func replace(_ offset: Int, _ address: IPv4Address) throws(PacketFormatError) {
    guard !isIPv6 else { throw PacketFormatError(.ipVersion, .number(6)) }
    let checksum = try transportChecksum()
    let old = bytes.bytes.loadUInt32(inside: start &+ offset)
    bytes.storeUInt32(address.rawValue, inside: start &+ offset)
    replaceInHeaderChecksum(old, address.rawValue)
    if let checksum { replaceInTransportChecksum(checksum, UInt64(old), UInt64(address.rawValue)) }
  }

  @_lifetime(self: copy self)
  private mutating func replace(_ offset: Int, _ address: IPv6Address) throws(PacketFormatError) {
    guard isIPv6 else { throw PacketFormatError(.ipVersion, .number(4)) }
    let checksum = try transportChecksum()
    let (high, low) = (start &+ offset, start &+ offset &+ 8)
    let old = (high: bytes.bytes.loadUInt64(inside: high), low: bytes.bytes.loadUInt64(inside: low))
    bytes.storeUInt64(address.high, inside: high)
    bytes.storeUInt64(address.low, inside: low)
    guard let checksum else { return }
    replaceInTransportChecksum(checksum, old.high, address.high)
    replaceInTransportChecksum(checksum, old.low, address.low)
  }

  @_lifetime(self: copy self)
  private mutating func replacePort(_ offset: Int, _ port: UInt16) throws(PacketFormatError) {
    guard let ports, let checksum = place.addressChecksum else {
      throw PacketFormatError(.otherProtocol, .ipProtocol(place.protocol))
    }
    let old = bytes.bytes.loadUInt16(inside: ports &+ offset)
    bytes.storeUInt16(port, inside: ports &+ offset)
    replaceInTransportChecksum(checksum, UInt64(old), UInt64(port))
  }

  /// Where the checksum is that covers the addresses; nil if nothing here does.
  private func transportChecksum() throws(PacketFormatError) -> Int? {
    guard let offset = place.addressChecksum else { return nil }
    // A first fragment may end before it; the rest of the sum would be wrong then, unseen until the whole is put together.
    guard offset &+ 2 <= place.end else { throw .truncated(2, at: offset, of: place.end) }
    return offset
  }

  @_lifetime(self: copy self)
  private mutating func replaceInHeaderChecksum(_ old: UInt32, _ new: UInt32) {
    let checksum = bytes.bytes.loadUInt16(inside: start &+ 10)
    bytes.storeUInt16(InternetChecksum.updated(checksum, replacing: old, with: new), inside: start &+ 10)
  }

  @_lifetime(self: copy self)
  private mutating func replaceInTransportChecksum(_ offset: Int, _ old: UInt64, _ new: UInt64) {
    let checksum = bytes.bytes.loadUInt16(inside: offset)
    // Of UDP zero says that the sender computed none (RFC 768; over IPv6 only some tunnels may, RFC 6935). Of UDP-Lite it is
    // always wrong (RFC 3828 §3.1). Either way it stays, and comes of no sum.
    let isNeverZero = place.protocol == .udp || place.protocol == .udpLite
    guard !isNeverZero || checksum != 0 else { return }
    let updated = InternetChecksum.updated(checksum, replacing: old, with: new)
    bytes.storeUInt16(isNeverZero && updated == 0 ? 0xFFFF : updated, inside: offset)
  }
}

extension IPProtocol {
  @inlinable static var udpLite: IPProtocol { IPProtocol(rawValue: 136) }
  @inlinable static var dccp: IPProtocol { IPProtocol(rawValue: 33) }
}
