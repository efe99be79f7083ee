import PacketFormats
import ReferenceFrames
import Testing

@Suite("IPv6 headers (RFC 8200 §3)")
struct IPv6HeaderTests {
  private func decode(_ frame: IPv6Frame) throws -> IPv6Header {
    let bytes = frame.bytes
    return try IPv6Header(decoding: bytes.raw, at: 14)
  }

  @Test("A header is read field by field and written back the same")
  func fields() throws {
    let bytes = hex(
      "6b 92 75 a2 00 02 3a 40 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02 fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 01"
    )
    let packet = bytes + [1, 2]
    let header = try IPv6Header(decoding: packet.raw)
    #expect(header.trafficClass == 0xB9 && header.flowLabel == 0x275A2 && header.payloadLength == 2)
    #expect(header.nextHeader == .icmpv6 && header.hopLimit == 64)
    #expect(header.source == There.ipv6 && header.destination == Here.linkLocal)
    var written = [UInt8](repeating: 0xEE, count: 42)
    try withMutableSpan(&written) { span throws(PacketFormatError) in try header.encode(into: &span, at: 1) }
    #expect(written == [0xEE] + bytes + [0xEE])
    let built = try IPv6Header(
      source: There.ipv6, destination: Here.linkLocal, nextHeader: .icmpv6, payloadLength: 2, trafficClass: 0xB9)
    #expect(built.flowLabel == 0 && built.hopLimit == 64 && built.payloadLength == 2 && built.trafficClass == 0xB9)
  }

  @Test("A header that ends early, another version, and a payload beyond the bytes are refused; padding is not")
  func refused() throws {
    for length in 0..<40 {
      let short = Array(IPv6Frame.udp().bytes[14...].prefix(length))
      expectError(.truncated) { try IPv6Header(decoding: short.raw) }
    }
    let bytes = IPv6Frame.udp().bytes
    for offset in [-1, bytes.count - 39, Int.max, Int.min] {
      expectError(.truncated) { try IPv6Header(decoding: bytes.raw, at: offset) }
    }
    for version in [0, 4, 5, 7, 15] {
      expectError(.ipVersion) { try decode(.udp { $0.version = version }) }
    }
    for length in [14, 65535] {
      expectError(.ipTotalLength) { try decode(.udp { $0.payloadLength = length }) }
    }
    #expect(try decode(.udp { $0.padding = [0, 0, 0] }).payloadLength == 13)
    #expect(try decode(.udp { $0.payloadLength = 0 }).payloadLength == 0)
  }

  @Test("What does not fit is refused and nothing is written")
  func limits() throws {
    for length in [-1, 65536, Int.max, Int.min] {
      expectError(.payloadTooLong) {
        try IPv6Header(source: Here.ipv6, destination: There.ipv6, nextHeader: .udp, payloadLength: length)
      }
    }
    let header = try IPv6Header(source: Here.ipv6, destination: There.ipv6, nextHeader: .udp, payloadLength: 65535)
    #expect(header.payloadLength == 65535)
    var bytes = [UInt8](repeating: 0xEE, count: 44)
    for offset in [5, 44, -1, Int.max] {
      expectError(.truncated) {
        try withMutableSpan(&bytes) { span throws(PacketFormatError) in try header.encode(into: &span, at: offset) }
      }
    }
    #expect(bytes == [UInt8](repeating: 0xEE, count: 44))
  }

  @Test("RFC 8200 §8.1: the pseudo-header has both addresses and the transport, whatever the next header is")
  func pseudoHeader() throws {
    let header = try decode(.udp { $0.extensions = [(60, [0, 0, 1, 4, 0, 0, 0, 0])] })
    #expect(header.nextHeader == .ipv6DestinationOptions)
    #expect(
      header.pseudoHeader(for: .udp).value == referenceChecksum(There.ipv6Bytes + Here.ipv6Bytes + [0, 0, 0, 17]))
  }
}

@Suite("IPv6 extension headers (RFC 8200 §4)")
struct IPv6PayloadTests {
  private func walk(_ extensions: [(UInt8, [UInt8])], proto: UInt8 = 17, _ payload: [UInt8] = [1, 2, 3]) throws
    -> IPv6Payload
  {
    let bytes = IPv6Frame(extensions: extensions.map { ($0.0, $0.1) }, proto: proto, payload: payload, padding: [9])
      .bytes
    return try IPv6Payload(decoding: bytes.raw, at: 14, header: IPv6Header(decoding: bytes.raw, at: 14))
  }

  private let padding: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]

  @Test("Without extension headers the payload is behind the header, without padding")
  func none() throws {
    for proto in [6, 17, 58, 59, 50, 51, 253] as [UInt8] {
      let payload = try walk([], proto: proto)
      #expect(payload.protocol.rawValue == proto && payload.offset == 54 && payload.length == 3)
      #expect(!payload.hasFragmentHeader)
    }
  }

  @Test("Options, routing without segments left and atomic fragments are skipped, in any order and number")
  func skipped() throws {
    let routing: [UInt8] = [0, 2, 0, 0] + [UInt8](repeating: 7, count: 20)
    let long: [UInt8] = [0, 2, 1, 14] + [UInt8](repeating: 0, count: 14) + [0, 0, 0x1E, 2, 9, 9]
    let atomic: [UInt8] = [0, 0xFF, 0, 6, 1, 2, 3, 4]
    var payload = try walk([(0, padding), (60, long), (43, routing), (44, atomic), (60, padding)])
    #expect(payload.protocol == .udp && payload.offset == 54 + 8 + 24 + 24 + 8 + 8 && payload.length == 3)
    #expect(payload.hasFragmentHeader)
    payload = try walk([(43, routing), (60, long), (43, routing), (60, padding)], proto: 58)
    #expect(payload.protocol == .icmpv6 && payload.offset == 54 + 24 + 24 + 24 + 8 && !payload.hasFragmentHeader)
    // Routers' business (router alert) and what nobody knows yet, as long as its highest two bits are zero.
    #expect(try walk([(0, [0, 0, 5, 2, 0, 0, 0, 0])]).offset == 62)
    #expect(try walk([(60, [0, 0, 0x3F, 0, 0x20, 2, 1, 2])]).offset == 62)
    #expect(try walk([(60, [0, 0, 0, 0, 0, 0, 0, 0])]).offset == 62)
    #expect(try walk([(60, padding)], []).length == 0)
  }

  @Test("§4.1: hop-by-hop options anywhere but behind the IPv6 header")
  func hopByHopPlace() {
    for before in [(60, padding), (43, [0, 0, 0, 0, 0, 0, 0, 0]), (0, padding)] as [(UInt8, [UInt8])] {
      expectError(.ipExtensionHeader) { try walk([before, (0, padding)]) }
    }
  }

  @Test("A header that runs over the end of the packet, whatever stands there")
  func ends() {
    for number in [0, 43, 44, 60] as [UInt8] {
      for count in 1..<8 {
        expectError(.ipExtensionHeader) {
          try walk([(number, [UInt8](repeating: 0, count: count))], proto: 17, [])
        }
      }
      guard number != 44 else { continue }
      expectError(.ipExtensionHeader) { try walk([(number, [0, 1, 0, 0, 0, 0, 0, 0])], []) }
      expectError(.ipExtensionHeader) { try walk([(number, [0, 255, 0, 0, 0, 0, 0, 0])]) }
    }
    // The next header is named, and is not there.
    expectError(.ipExtensionHeader) { try walk([(60, padding)], proto: 60, []) }
  }

  @Test("§4.2: options that run over the end of their header")
  func options() {
    let cases: [[UInt8]] = [
      [0, 0, 1, 5, 0, 0, 0, 0], [0, 0, 1, 255, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 1, 2, 0, 0, 5, 1],
    ]
    for bytes in cases {
      expectError(.ipOptions) { try walk([(60, bytes)]) }
      expectError(.ipOptions) { try walk([(0, bytes)]) }
    }
  }

  @Test("§4.2: unknown options whose highest two bits are not zero, a jumbo payload and a home address among them")
  func unknownOptions() {
    for kind in [0x40, 0x80, 0xC0, 0xC2, 0xC9, 0xFF] as [UInt8] {
      for number in [0, 60] as [UInt8] {
        expectError(.ipUnknownOption) { try walk([(number, [0, 0, kind, 4, 0, 0, 0, 0])]) }
      }
    }
  }

  @Test("§4.4, RFC 5095: a routing header with segments left, of any type")
  func routing() {
    for kind in [0, 2, 3, 4, 253] as [UInt8] {
      expectError(.ipSourceRoute) { try walk([(43, [0, 0, kind, 1, 0, 0, 0, 0])]) }
      expectError(.ipSourceRoute) { try walk([(43, [0, 0, kind, 255, 0, 0, 0, 0])]) }
    }
  }

  @Test("§4.5: fragments, the first, a middle one and the last")
  func fragments() {
    for field in [0x0001, 0x0008, 0x0009, 0xFFF8, 0xFFF9] {
      expectError(.ipFragment) {
        try walk([(44, [0, 0] + bigEndian(field, 2) + [0, 0, 0, 1])])
      }
    }
  }

  @Test("A packet that is not inside the bytes is truncated")
  func truncated() throws {
    let bytes = IPv6Frame.udp().bytes
    let header = try IPv6Header(decoding: bytes.raw, at: 14)
    for offset in [15, -1, 28, Int.max, Int.min] {
      expectError(.truncated) { try IPv6Payload(decoding: bytes.raw, at: offset, header: header) }
    }
  }
}
