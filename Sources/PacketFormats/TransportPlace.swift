/// Where in a packet the header of its transport is, as far as somebody who only passes it on may care.
///
/// Unlike ``IPv6Payload`` this walk refuses nothing: a router passes on options that it does not know, and fragments. Where the
/// header is not to be found, there is none.
@frozen
@usableFromInline
struct TransportPlace {
  /// What is carried, by the last number that was understood.
  @usableFromInline let `protocol`: IPProtocol
  /// Where it begins; nil in a fragment that is not the first, and where the walk ended before it.
  @usableFromInline let offset: Int?
  /// The end of the packet by its length fields, inside the bytes.
  @usableFromInline let end: Int
  /// Whether a source route or a routing header may want the packet sent on: its checksum then covers another destination
  /// (RFC 8200 §8.1).
  @usableFromInline let hasOpenRoute: Bool
  /// Whether this is a piece of a packet.
  @usableFromInline let isFragment: Bool

  /// In the packet of IPv4 whose header was decoded at `start`.
  @usableFromInline
  init(_ header: IPv4Header, in bytes: RawSpan, at start: Int) {
    `protocol` = header.protocol
    offset = header.isFirstFragment ? start &+ header.headerLength : nil
    end = start &+ header.totalLength
    isFragment = header.isFragment
    var isOpen = false
    if header.hasOptions {
      do throws(PacketFormatError) { try IPv4Options.check(bytes, at: start, header: header) } catch {
        isOpen = error.reason == .ipSourceRoute
      }
    }
    hasOpenRoute = isOpen
  }

  /// In the packet of IPv6 whose header was decoded at `start`.
  @usableFromInline
  init(_ header: IPv6Header, in bytes: RawSpan, at start: Int) {
    var next = header.nextHeader
    var position = start &+ IPv6Header.length
    let end = position &+ header.payloadLength
    var isOpen = false
    var isFragment = false
    var isFound = true
    // Each header is at least eight bytes long, so the walk is no longer than the packet.
    walk: while true {
      switch next {
      case .ipv6HopByHop, .ipv6DestinationOptions, .ipv6Routing:
        guard end &- position >= 8 else {
          isFound = false
          break walk
        }
        let length = (Int(bytes.loadUInt8(inside: position &+ 1)) &+ 1) &* 8
        guard length <= end &- position else {
          isFound = false
          break walk
        }
        if next == .ipv6Routing, bytes.loadUInt8(inside: position &+ 3) != 0 { isOpen = true }
        next = IPProtocol(rawValue: bytes.loadUInt8(inside: position))
        position &+= length
      case .ipv6Fragment:
        guard end &- position >= 8 else {
          isFound = false
          break walk
        }
        let word = bytes.loadUInt16(inside: position &+ 2)
        isFragment = isFragment || word & 0xFFF9 != 0
        next = IPProtocol(rawValue: bytes.loadUInt8(inside: position))
        position &+= 8
        guard word & 0xFFF8 == 0 else {
          isFound = false
          break walk
        }
      default:
        break walk
      }
    }
    `protocol` = next
    offset = isFound ? position : nil
    self.end = end
    hasOpenRoute = isOpen
    self.isFragment = isFragment
  }

  /// Where the checksum of the transport is, if it is one that covers the addresses of the packet.
  ///
  /// Of these each knows: TCP (RFC 9293 §3.1), UDP and UDP-Lite (RFC 768, RFC 3828), DCCP (RFC 4340 §9.1), and ICMP of IPv6.
  /// The checksum of SCTP, and that of ICMP for IPv4, covers no address.
  @inlinable var addressChecksum: Int? {
    guard let offset else { return nil }
    switch `protocol` {
    case .tcp: return offset &+ 16
    case .udp, .udpLite, .dccp: return offset &+ 6
    case .icmpv6: return offset &+ 2
    default: return nil
    }
  }
}

extension IPv4Header {
  /// Whether the transport's header follows this one: the offset is zero, fragment or not.
  @inlinable package var isFirstFragment: Bool { first & 0x1FFF == 0 }
}
