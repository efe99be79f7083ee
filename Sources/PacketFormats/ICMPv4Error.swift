/// A message of ICMP for IPv4 that tells a sender what became of its packet (RFC 792), with the front of that packet in it.
///
/// Not every packet may be answered with one, or errors would answer errors for ever: ``quote(_:)`` knows the rules.
public enum ICMPv4Error: Sendable, Hashable {
  /// The packet cannot be delivered (type 3).
  case unreachable(Unreachable)
  /// The packet is longer than the next link takes and must not be fragmented (type 3, code 4, RFC 1191).
  case fragmentationNeeded(mtu: UInt16)
  /// The packet has passed as many routers as it may (type 11, code 0).
  case timeExceeded
  /// Fragments are missing, and too much time has passed (type 11, code 1).
  case reassemblyTimeExceeded
  /// This byte of the header cannot be understood (type 12).
  case parameterProblem(pointer: UInt8)

  /// Why a packet cannot be delivered: the code of type 3.
  @frozen
  public struct Unreachable: RawRepresentable, Sendable, Hashable {
    /// The number on the wire.
    public let rawValue: UInt8

    /// The code with this number.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// No way leads to the network.
    @inlinable public static var network: Unreachable { Unreachable(rawValue: 0) }
    /// The host does not answer on its link.
    @inlinable public static var host: Unreachable { Unreachable(rawValue: 1) }
    /// The host does not know the protocol.
    @inlinable public static var `protocol`: Unreachable { Unreachable(rawValue: 2) }
    /// Nobody listens at the port.
    @inlinable public static var port: Unreachable { Unreachable(rawValue: 3) }
    /// A rule forbids it (RFC 1812 §5.2.7.1).
    @inlinable public static var prohibited: Unreachable { Unreachable(rawValue: 13) }
  }

  /// The longest packet with an error that a router sends (RFC 1812 §4.3.2.3).
  public static var maximumPacketLength: Int { 576 }
  /// Bytes between the Ethernet header and the packet that is quoted: a header of IPv4 and one of ICMP.
  public static var headerLength: Int { IPv4Header.minimumLength + ICMPv4Message.headerLength }

  /// The part of a received frame that an error about it quotes, and whom it is for.
  public struct Quote: Sendable, Hashable {
    /// Addresses and tags of the frame, which those of the answer mirror.
    public let header: TaggedHeader
    /// Who sent the packet, and is to be told.
    public let source: IPv4Address
    /// Whom the packet was for.
    public let destination: IPv4Address
    /// Where in the frame the bytes are that are quoted: as many as the longest error holds, without padding.
    public let range: Range<Int>

    /// Bytes of the answer in front of the quoted ones.
    public var frontLength: Int { header.length + ICMPv4Error.headerLength }
  }

  /// What to quote of a received frame.
  ///
  /// A directed broadcast, which only who knows the network can tell, is for the caller to leave out.
  ///
  /// - Throws: what decoding throws; `unanswerable`, with what keeps it from an answer (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7): an
  ///   ICMP message that is no query (its type), a group or broadcast as destination of packet or frame, a source that is no
  ///   host; `ipFragment` for a fragment that is not the first.
  public static func quote(_ frame: RawSpan) throws(PacketFormatError) -> Quote {
    let header = try TaggedHeader(decoding: frame)
    guard header.etherType == .ipv4 else { throw PacketFormatError(.otherProtocol, .etherType(header.etherType)) }
    let ip = try IPv4Header(decoding: frame, at: header.length)
    guard !header.destination.isGroup else { throw PacketFormatError(.unanswerable, .station(header.destination)) }
    guard header.source.isUnicast else { throw PacketFormatError(.unanswerable, .station(header.source)) }
    guard !ip.destination.isMulticast, !ip.destination.isReserved else {
      throw PacketFormatError(.unanswerable, .ipv4(ip.destination))
    }
    guard ip.source.isHost else { throw PacketFormatError(.unanswerable, .ipv4(ip.source)) }
    guard ip.isFirstFragment else { throw PacketFormatError(.ipFragment) }
    if ip.protocol == .icmpv4 {
      let start = header.length + ip.headerLength
      let kind = try frame.extracting(first: header.length + ip.totalLength).loadUInt8(at: start)
      // The queries, by number; all else is an error, or may be one.
      guard [0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(kind) else {
        throw PacketFormatError(.unanswerable, .number(UInt64(kind)))
      }
    }
    let count = min(ip.totalLength, maximumPacketLength - headerLength)
    return Quote(
      header: header, source: ip.source, destination: ip.destination, range: header.length..<(header.length + count))
  }

  /// Writes the frame of the error in front of the quoted bytes, which are in place ``Quote/frontLength`` bytes into `frame`.
  ///
  /// - Parameters:
  ///   - frame: where to write.
  ///   - quote: what ``quote(_:)`` found.
  ///   - source: who says so: an address of the router, or of the host.
  ///   - timeToLive: how many routers the error may pass.
  /// - Returns: the length of the frame.
  /// - Throws: `truncated` if it does not fit; then nothing is written.
  public func encode(
    into frame: inout MutableRawSpan, quoting quote: Quote, from source: IPv4Address, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Int {
    let length = quote.frontLength + quote.range.count
    guard frame.holds(length, at: 0) else { throw .truncated(length, at: 0, of: frame.byteCount) }
    try quote.header.answered(from: quote.header.destination).encode(into: &frame)
    // Errors travel as what keeps the network going (RFC 1812 §4.3.2.5).
    let ip = try IPv4Header(
      source: source, destination: quote.source, protocol: .icmpv4,
      payloadLength: ICMPv4Message.headerLength + quote.range.count, timeToLive: timeToLive, trafficClass: 0xC0)
    ip.store(into: &frame, at: quote.header.length)
    let start = quote.header.length + IPv4Header.minimumLength
    let (front, rest) = words
    var sum = InternetChecksum()
    sum.add(front)
    sum.add(rest)
    sum.add(frame.bytes.extracting(quote.frontLength..<length))
    frame.storeUInt32(front | UInt32(sum.value), inside: start)
    frame.storeUInt32(rest, inside: start + 4)
    return length
  }

  /// Type, code and a checksum of zero; and the four bytes behind them.
  private var words: (UInt32, UInt32) {
    switch self {
    case .unreachable(let code): (3 << 24 | UInt32(code.rawValue) << 16, 0)
    case .fragmentationNeeded(let mtu): (3 << 24 | 4 << 16, UInt32(mtu))
    case .timeExceeded: (11 << 24, 0)
    case .reassemblyTimeExceeded: (11 << 24 | 1 << 16, 0)
    case .parameterProblem(let pointer): (12 << 24, UInt32(pointer) << 24)
    }
  }
}
