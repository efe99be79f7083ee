internal import PacketFormats

/// Frames that say which they are, and to which flow they belong.
///
/// Long enough, a frame is a UDP datagram over IPv4, so that whatever steers flows sees one flow a queue; shorter ones carry
/// an experimental EtherType. Nobody is addressed: the addresses are reserved for such uses, and the stations the suite's.
enum ConformanceFrame {
  private static let headers = 42

  static func bytes(
    _ number: Int, length: Int, flow: Int = 0, from source: MACAddress, to destination: MACAddress
  ) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: length)
    let isDatagram = length >= headers + 4
    put([destination, source].flatMap { station in (0..<6).map { station[$0] } }, at: 0, in: &bytes)
    // EtherType: IPv4, or one for local experiments (IEEE 802).
    put(isDatagram ? [0x08, 0x00] : [0x88, 0xb5], at: 12, in: &bytes)
    let payload = isDatagram ? headers : 14
    if isDatagram { putHeaders(length: length - 14, flow: flow, in: &bytes) }
    for position in payload..<max(payload, length) {
      let offset = position - payload
      bytes[position] =
        offset < 4
        ? UInt8(truncatingIfNeeded: number >> (offset * 8)) : UInt8(truncatingIfNeeded: number &* 31 &+ offset)
    }
    return bytes
  }

  private static func put(_ part: [UInt8], at offset: Int, in bytes: inout [UInt8]) {
    for (position, byte) in part.enumerated() where offset + position < bytes.count { bytes[offset + position] = byte }
  }

  private static func putHeaders(length: Int, flow: Int, in bytes: inout [UInt8]) {
    let (total, datagram, port) = (UInt16(clamping: length), UInt16(clamping: length - 20), UInt16(40_000 + flow))
    // Version and header length, no fragment, hop limit 64, UDP; from 192.0.2.1 to 192.0.2.2 (RFC 5737).
    var header: [UInt8] = [0x45, 0, high(total), low(total), 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]
    var sum: UInt32 = 0
    for position in stride(from: 0, to: header.count, by: 2) {
      sum += UInt32(header[position]) << 8 | UInt32(header[position + 1])
    }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    let checksum = ~UInt16(truncatingIfNeeded: sum)
    header[10] = high(checksum)
    header[11] = low(checksum)
    put(header, at: 14, in: &bytes)
    // To the discard port, without a checksum.
    put([high(port), low(port), 0, 9, high(datagram), low(datagram), 0, 0], at: 34, in: &bytes)
  }

  private static func high(_ value: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: value >> 8) }
  private static func low(_ value: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: value) }

  /// How two frames differ, for a person; nil when they do not.
  static func difference(_ seen: [UInt8], from expected: [UInt8]) -> String? {
    guard seen != expected else { return nil }
    guard seen.count == expected.count else { return "\(seen.count) bytes instead of \(expected.count)" }
    let position = zip(seen, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
    return "byte \(position) of \(expected.count) is \(seen[position]) instead of \(expected[position])"
  }
}
