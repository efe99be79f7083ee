/// One line about a frame, as tcpdump would print it with `-e -n`: stations, tags, addresses, protocol, ports, flags, lengths.
///
///     print(FrameSummary(frame))
///     // 02:00:00:00:00:02 > 02:00:00:00:00:01, IPv4, length 47: 10.0.0.2.5000 > 10.0.0.1.7: UDP, length 5
///
/// It is for people. It believes no length and checks no sum: whatever the bytes say, nothing outside them is read, what does
/// not fit is said to be cut (`[|UDP]`), and the line is short. The front of a frame is enough: ``prefixLength`` bytes.
public struct FrameSummary: Sendable, Hashable, CustomStringConvertible {
  /// Bytes of a frame beyond which nothing is looked at.
  public static var prefixLength: Int { 256 }

  /// The line.
  public let description: String

  /// The line about a frame whose first bytes these are.
  ///
  /// - Parameters:
  ///   - bytes: the frame from its Ethernet header on, or the front of it.
  ///   - frameLength: bytes of all of the frame; nil when they are these.
  public init(_ bytes: RawSpan, frameLength: Int? = nil) {
    let length = max(frameLength ?? bytes.byteCount, bytes.byteCount)
    description = FrameSummary.line(bytes.extracting(first: FrameSummary.prefixLength), length)
  }

  private static func line(_ bytes: RawSpan, _ length: Int) -> String {
    guard let ethernet = try? EthernetHeader(decoding: bytes) else { return "[|ether], length \(length)" }
    var line = "\(ethernet.source) > \(ethernet.destination)"
    let header: TaggedHeader
    do throws(PacketFormatError) { header = try TaggedHeader(decoding: bytes) } catch {
      let why = error.reason == .vlanTagged ? "[more than two tags]" : "[|vlan]"
      return line + ", \(ethernet.etherType), length \(length): \(why)"
    }
    for case let tag? in [header.outerTag, header.innerTag] {
      line += ", \(tag.etherType == .customerTag ? "" : "\(tag.etherType) ")\(tag)"
    }
    if header.etherType.isLength { return line + ", 802.3, length \(length)" }
    line += ", \(header.etherType), length \(length)"
    let left = length - header.length
    let rest = bytes.extracting(header.length..<bytes.byteCount)
    switch header.etherType {
    case .arp: return line + ": " + arp(rest)
    case .ipv4: return line + ": " + ipv4(rest, left)
    case .ipv6: return line + ": " + ipv6(rest, left)
    default: return line
    }
  }

  private static func arp(_ bytes: RawSpan) -> String {
    guard let packet = try? ARPPacket(decoding: bytes) else { return "[|ARP]" }
    return "\(packet)"
  }

  /// `left` are the bytes of the frame from here on, of which `bytes` may be only the first.
  private static func ipv4(_ bytes: RawSpan, _ left: Int) -> String {
    // Not by `IPv4Header`, which refuses what a person wants to see.
    guard let first = try? bytes.loadUInt64(at: 0), let second = try? bytes.loadUInt64(at: 8),
      let destination = IPv4Address(decoding: bytes, at: 16)
    else { return "[|IP]" }
    let source = IPv4Address(rawValue: UInt32(truncatingIfNeeded: second))
    let transport = IPProtocol(rawValue: UInt8(truncatingIfNeeded: second >> 48))
    let headerLength = Int(truncatingIfNeeded: first >> 56 & 0xF) * 4
    let totalLength = Int(truncatingIfNeeded: first >> 32 & 0xFFFF)
    guard first >> 60 == 4 else { return "[version \(first >> 60)]" }
    guard headerLength >= 20, totalLength >= headerLength else {
      return "\(source) > \(destination): [header length \(headerLength), total length \(totalLength)]"
    }
    let missing = totalLength > left ? "truncated-ip - \(totalLength - left) bytes missing! " : ""
    let fragment = Int(truncatingIfNeeded: first & 0x1FFF) * 8
    let more = first & 0x2000 != 0
    var end = ""
    if fragment > 0 || more { end = " (frag offset \(fragment), flags [\(more ? "+" : "none")])" }
    let payload = bytes.extracting(min(headerLength, bytes.byteCount)..<bytes.byteCount)
    let length = min(totalLength, left) - headerLength
    // Only the first fragment begins with the header of its transport.
    guard fragment == 0 else {
      return missing + "\(source) > \(destination): \(transport), length \(max(0, length))" + end
    }
    return missing + Transport(payload, transport, length).line("\(source)", "\(destination)") + end
  }

  private static func ipv6(_ bytes: RawSpan, _ left: Int) -> String {
    guard let first = try? bytes.loadUInt64(at: 0), let source = IPv6Address(decoding: bytes, at: 8),
      let destination = IPv6Address(decoding: bytes, at: 24)
    else { return "[|IP6]" }
    guard first >> 60 == 6 else { return "[version \(first >> 60)]" }
    let payloadLength = Int(truncatingIfNeeded: first >> 16 & 0xFFFF)
    let available = left - IPv6Header.length
    let missing = payloadLength > available ? "truncated-ip6 - \(payloadLength - available) bytes missing! " : ""
    var next = IPProtocol(rawValue: UInt8(truncatingIfNeeded: first >> 8))
    var position = IPv6Header.length
    var end = ""
    var isLaterFragment = false
    // Each turn goes on by eight bytes at least, inside a prefix: the walk ends.
    while [.ipv6HopByHop, .ipv6Routing, .ipv6Fragment, .ipv6DestinationOptions].contains(next), !isLaterFragment {
      guard let word = try? bytes.loadUInt32(at: position) else {
        return missing + "\(source) > \(destination): [|\(next)]"
      }
      let isFragment = next == .ipv6Fragment
      if isFragment {
        let offset = Int(truncatingIfNeeded: word & 0xFFF8)
        isLaterFragment = offset > 0
        end = " (frag offset \(offset), flags [\(word & 1 != 0 ? "+" : "none")])"
      }
      next = IPProtocol(rawValue: UInt8(truncatingIfNeeded: word >> 24))
      position += isFragment ? 8 : (Int(truncatingIfNeeded: word >> 16 & 0xFF) + 1) * 8
    }
    let length = min(payloadLength, available) - (position - IPv6Header.length)
    let payload = bytes.extracting(min(position, bytes.byteCount)..<bytes.byteCount)
    guard !isLaterFragment else {
      return missing + "\(source) > \(destination): \(next), length \(max(0, length))" + end
    }
    return missing + Transport(payload, next, length).line("\(source)", "\(destination)") + end
  }
}
