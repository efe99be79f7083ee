/// A message of ICMP for IPv6 that tells a sender what became of its packet (RFC 4443 §3), with the front of that packet in it.
///
/// Not every packet may be answered with one (§2.4): ``quote(_:)`` knows the rules.
public enum ICMPv6Error: Sendable, Hashable {
  /// The packet cannot be delivered (type 1).
  case unreachable(Unreachable)
  /// The packet is longer than the next link takes (type 2).
  case packetTooBig(mtu: UInt32)
  /// The packet has passed as many routers as it may (type 3, code 0).
  case timeExceeded
  /// Fragments are missing, and too much time has passed (type 3, code 1).
  case reassemblyTimeExceeded
  /// This byte of the packet cannot be understood (type 4).
  case parameterProblem(Parameter, pointer: UInt32)

  /// Why a packet cannot be delivered: the code of type 1.
  @frozen
  public struct Unreachable: RawRepresentable, Sendable, Hashable {
    /// The number on the wire.
    public let rawValue: UInt8

    /// The code with this number.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// No way leads to the destination.
    @inlinable public static var noRoute: Unreachable { Unreachable(rawValue: 0) }
    /// A rule forbids it.
    @inlinable public static var prohibited: Unreachable { Unreachable(rawValue: 1) }
    /// The host does not answer on its link.
    @inlinable public static var address: Unreachable { Unreachable(rawValue: 3) }
    /// Nobody listens at the port.
    @inlinable public static var port: Unreachable { Unreachable(rawValue: 4) }
  }

  /// What is not understood: the code of type 4.
  @frozen
  public enum Parameter: UInt8, Sendable, Hashable {
    /// A field of a header.
    case headerField = 0
    /// The number of a next header.
    case nextHeader = 1
    /// An option that may not be skipped.
    case option = 2
  }

  /// The longest packet with an error: the least that every link carries (RFC 4443 §2.4 (c)).
  public static var maximumPacketLength: Int { 1280 }
  /// Bytes between the Ethernet header and the packet that is quoted: a header of IPv6 and one of ICMP.
  public static var headerLength: Int { IPv6Header.length + ICMPv6Message.headerLength }

  /// The part of a received frame that an error about it quotes, and whom it is for.
  public struct Quote: Sendable, Hashable {
    /// Addresses and tags of the frame, which those of the answer mirror.
    public let header: TaggedHeader
    /// Who sent the packet, and is to be told.
    public let source: IPv6Address
    /// Whom the packet was for.
    public let destination: IPv6Address
    /// Where in the frame the bytes are that are quoted: as many as the longest error holds, without padding.
    public let range: Range<Int>

    /// Bytes of the answer in front of the quoted ones.
    public var frontLength: Int { header.length + ICMPv6Error.headerLength }
  }

  /// What to quote of a received frame in this error.
  ///
  /// - Throws: what decoding throws; `unanswerable`, with what keeps it from an answer (§2.4 (e)): an ICMP error or a redirect
  ///   (its type), a group as destination of packet or frame, but for the two errors that say why, a source that is no host;
  ///   `ipFragment` for a fragment that is not the first.
  public func quote(_ frame: RawSpan) throws(PacketFormatError) -> Quote {
    let header = try TaggedHeader(decoding: frame)
    guard header.etherType == .ipv6 else { throw PacketFormatError(.otherProtocol, .etherType(header.etherType)) }
    let ip = try IPv6Header(decoding: frame, at: header.length)
    guard header.source.isUnicast else { throw PacketFormatError(.unanswerable, .station(header.source)) }
    guard ip.source.isHost else { throw PacketFormatError(.unanswerable, .ipv6(ip.source)) }
    if !mayAnswerGroup {
      guard !header.destination.isGroup else { throw PacketFormatError(.unanswerable, .station(header.destination)) }
      guard !ip.destination.isMulticast else { throw PacketFormatError(.unanswerable, .ipv6(ip.destination)) }
    }
    let place = TransportPlace(ip, in: frame, at: header.length)
    if let offset = place.offset {
      if place.protocol == .icmpv6 {
        let kind = try frame.extracting(first: place.end).loadUInt8(at: offset)
        // Up to 127 they are errors; 137 is a redirect.
        guard kind >= 128, kind != 137 else { throw PacketFormatError(.unanswerable, .number(UInt64(kind))) }
      }
    } else if place.isFragment {
      throw PacketFormatError(.ipFragment)
    }
    let count = min(IPv6Header.length + ip.payloadLength, ICMPv6Error.maximumPacketLength - ICMPv6Error.headerLength)
    return Quote(
      header: header, source: ip.source, destination: ip.destination, range: header.length..<(header.length + count))
  }

  /// Writes the frame of the error in front of the quoted bytes, which are in place ``Quote/frontLength`` bytes into `frame`.
  ///
  /// - Parameters:
  ///   - frame: where to write.
  ///   - quote: what ``quote(_:)`` found.
  ///   - source: who says so: an address of the router, or of the host.
  ///   - station: the Ethernet source; nil takes the destination of the frame answered, which must not be a group then.
  ///   - hopLimit: how many routers the error may pass.
  /// - Returns: the length of the frame.
  /// - Throws: `truncated` if it does not fit, `unanswerable` for an answer that would come from a group; then nothing is
  ///   written.
  public func encode(
    into frame: inout MutableRawSpan, quoting quote: Quote, from source: IPv6Address, station: MACAddress? = nil,
    hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Int {
    let length = quote.frontLength + quote.range.count
    guard frame.holds(length, at: 0) else { throw .truncated(length, at: 0, of: frame.byteCount) }
    let own = station ?? quote.header.destination
    guard own.isUnicast else { throw PacketFormatError(.unanswerable, .station(own)) }
    try quote.header.answered(from: own).encode(into: &frame)
    let ip = IPv6Header(
      source: source, destination: quote.source, nextHeader: .icmpv6,
      knownLength: ICMPv6Message.headerLength + quote.range.count, hopLimit: hopLimit, trafficClass: 0)
    ip.store(into: &frame, at: quote.header.length)
    let start = quote.header.length + IPv6Header.length
    let (front, rest) = words
    var sum = InternetChecksum()
    sum.add(front)
    sum.add(rest)
    sum.add(frame.bytes.extracting(quote.frontLength..<length))
    sum.add(ip.pseudoHeader(for: .icmpv6), length: ip.payloadLength)
    frame.storeUInt32(front | UInt32(sum.value), inside: start)
    frame.storeUInt32(rest, inside: start + 4)
    return length
  }

  /// A router must say that a packet is too big, or has an option it does not know, for packets to groups too (§2.4 (e.3)).
  private var mayAnswerGroup: Bool {
    switch self {
    case .packetTooBig, .parameterProblem(.option, _): true
    default: false
    }
  }

  /// Type, code and a checksum of zero; and the four bytes behind them.
  private var words: (UInt32, UInt32) {
    switch self {
    case .unreachable(let code): (1 << 24 | UInt32(code.rawValue) << 16, 0)
    case .packetTooBig(let mtu): (2 << 24, mtu)
    case .timeExceeded: (3 << 24, 0)
    case .reassemblyTimeExceeded: (3 << 24 | 1 << 16, 0)
    case .parameterProblem(let code, let pointer): (4 << 24 | UInt32(code.rawValue) << 16, pointer)
    }
  }
}
