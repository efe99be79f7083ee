import PacketFormats
import ReferenceFrames
import Testing

@Suite("Ethernet headers and ARP packets")
struct EthernetAndARPTests {
  @Test("IEEE 802.3 §3.2: destination, source, type")
  func ethernet() throws {
    let bytes = hex("ff 02 03 04 05 06  07 08 09 0a 0b 0c  86 dd")
    let header = try EthernetHeader(decoding: bytes.raw)
    #expect(header.destination == MACAddress(0xFF, 2, 3, 4, 5, 6))
    #expect(header.source == MACAddress(7, 8, 9, 10, 11, 12))
    #expect(header.etherType == .ipv6)
    var written = [UInt8](repeating: 0, count: 16)
    try withMutableSpan(&written) { span throws(PacketFormatError) in try header.encode(into: &span, at: 1) }
    #expect(written == [0] + bytes + [0])
    #expect(header == EthernetHeader(destination: header.destination, source: header.source, etherType: .ipv6))
  }

  @Test("IEEE 802.1Q: tags are noticed; IEEE 802.3: numbers up to 1500 are lengths")
  func etherTypes() {
    for tag in [0x8100, 0x88A8, 0x9100] as [UInt16] { #expect(EtherType(rawValue: tag).isVLANTag) }
    for type in [EtherType.ipv4, .arp, .ipv6] { #expect(!type.isVLANTag && !type.isLength) }
    #expect(EtherType(rawValue: 1500).isLength && !EtherType(rawValue: 1501).isLength)
    #expect("\(EtherType.arp)" == "ARP" && "\(EtherType.ipv4)" == "IPv4" && "\(EtherType.ipv6)" == "IPv6")
    #expect("\(EtherType(rawValue: 0x08CC))" == "0x08cc" && "\(EtherType.serviceTag)" == "802.1ad")
  }

  @Test("RFC 826: a packet is read field by field and written back the same")
  func arp() throws {
    let bytes = Array(ARPFrame(operation: 1, targetMAC: [9, 8, 7, 6, 5, 4]).bytes[14..<42])
    let packet = try ARPPacket(decoding: bytes.raw)
    #expect(packet.operation == .request)
    #expect(packet.senderHardwareAddress == There.mac && packet.senderProtocolAddress == There.ip)
    #expect(packet.targetHardwareAddress == MACAddress(9, 8, 7, 6, 5, 4) && packet.targetProtocolAddress == Here.ip)
    var written = [UInt8](repeating: 0xEE, count: 30)
    try withMutableSpan(&written) { span throws(PacketFormatError) in try packet.encode(into: &span, at: 1) }
    #expect(written == [0xEE] + bytes + [0xEE])
  }

  @Test("RFC 826: only Ethernet and IPv4 are understood")
  func arpAddressSpaces() {
    let frames = [
      ARPFrame(hardwareType: 6), ARPFrame(protocolType: 0x86DD), ARPFrame(lengths: [8, 4]), ARPFrame(lengths: [6, 16]),
    ]
    for frame in frames {
      let bytes = frame.bytes
      expectError(.arpAddressSpace) { try ARPPacket(decoding: bytes.raw, at: 14) }
    }
  }

  @Test("Headers that are not all there are truncated, at any offset, and nothing is written")
  func truncation() {
    let bytes = IPv4Frame.icmp().bytes
    for (length, offset) in [(13, 0), (14, 1), (14, -1), (0, 0), (14, Int.max), (14, Int.min)] {
      expectError(.truncated) {
        try EthernetHeader(decoding: bytes.raw.extracting(first: length), at: offset)
      }
    }
    for (length, offset) in [(27, 0), (28, 1), (28, -1)] {
      expectError(.truncated) {
        try ARPPacket(decoding: bytes.raw.extracting(first: length), at: offset)
      }
    }
    var short = [UInt8](repeating: 0xEE, count: 13)
    let header = EthernetHeader(destination: Here.mac, source: There.mac, etherType: .arp)
    expectError(.truncated) {
      try withMutableSpan(&short) { span throws(PacketFormatError) in try header.encode(into: &span) }
    }
    let packet = ARPPacket(
      operation: .reply, senderHardwareAddress: Here.mac, senderProtocolAddress: Here.ip,
      targetHardwareAddress: There.mac, targetProtocolAddress: There.ip)
    expectError(.truncated) {
      try withMutableSpan(&short) { span throws(PacketFormatError) in try packet.encode(into: &span) }
    }
    #expect(short == [UInt8](repeating: 0xEE, count: 13))
  }
}

@Suite("IPv4 headers (RFC 791)")
struct IPv4HeaderTests {
  // A header as published in many places: 192.168.0.1 to 192.168.0.199, UDP, 115 bytes.
  private let published = hex("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7")

  private func decode(_ frame: IPv4Frame) throws(PacketFormatError) -> IPv4Header {
    let bytes = frame.bytes
    return try IPv4Header(decoding: bytes.raw, at: 14)
  }

  @Test("RFC 791 §3.1: a published header is read field by field and written back the same")
  func fields() throws {
    let packet = published + [UInt8](repeating: 0, count: 95)
    let header = try IPv4Header(decoding: packet.raw)
    #expect(header.headerLength == 20 && header.payloadLength == 95 && header.totalLength == 115)
    #expect(header.trafficClass == 0 && header.identification == 0 && header.timeToLive == 64)
    #expect(header.protocol == .udp && !header.isFragment && header.doNotFragment && !header.hasOptions)
    #expect(header.source == IPv4Address(192, 168, 0, 1) && header.destination == IPv4Address(192, 168, 0, 199))
    var written = [UInt8](repeating: 0xEE, count: 22)
    try withMutableSpan(&written) { span throws(PacketFormatError) in try header.encode(into: &span, at: 1) }
    #expect(written == [0xEE] + published + [0xEE])
    let made = try IPv4Header(
      source: header.source, destination: header.destination, protocol: .udp, payloadLength: 95)
    #expect(made == header)
  }

  @Test("RFC 791 §3.1: traffic class, identification and time to live are where they belong")
  func smallFields() throws {
    let header = try decode(.udp { ($0.trafficClass, $0.identification, $0.timeToLive) = (0xB9, 0xABCD, 200) })
    #expect(header.trafficClass == 0xB9 && header.identification == 0xABCD && header.timeToLive == 200)
    #expect(!header.doNotFragment)
  }

  @Test("RFC 1122 §3.2.1.1: another version is refused")
  func version() {
    for version in [0, 3, 5, 6, 15] {
      expectError(.ipVersion) { try decode(.udp { $0.version = version }) }
    }
  }

  @Test("RFC 791 §3.1: a header length below five words or beyond the packet is refused")
  func headerLength() {
    expectError(.ipHeaderLength) { try decode(.udp { $0.headerWords = 4 }) }
    expectError(.ipHeaderLength) { try decode(.udp { $0.headerWords = 0 }) }
    var short = IPv4Frame()
    short.headerWords = 6
    short.payload = [0, 0, 0]
    expectError(.ipHeaderLength) { try decode(short) }
  }

  @Test("RFC 791 §3.1: a total length below the header length or beyond the frame is refused")
  func totalLength() throws {
    expectError(.ipTotalLength) { try decode(.udp { $0.totalLength = 19 }) }
    expectError(.ipTotalLength) {
      try decode(.udp { ($0.options, $0.totalLength) = ([1, 1, 1, 1], 23) })
    }
    var empty = IPv4Frame()
    empty.totalLength = 21
    expectError(.ipTotalLength) { try decode(empty) }
    empty.totalLength = 20
    #expect(try decode(empty).payloadLength == 0)
    empty.padding = [1, 2, 3]
    #expect(try decode(empty).payloadLength == 0, "padding is not payload")
  }

  @Test("RFC 1122 §3.2.1.2: every bit of the header, options too, is under the checksum")
  func checksum() throws {
    for options in [[], [1, 1, 1, 0]] as [[UInt8]] {
      var bytes = IPv4Frame.udp { $0.options = options }.bytes
      let end = 34 + options.count
      #expect(try IPv4Header(decoding: bytes.raw, at: 14).headerLength == 20 + options.count)
      for bit in (16 * 8)..<(end * 8) {
        bytes[bit / 8] ^= 0x80 >> UInt8(bit % 8)
        #expect(throws: PacketFormatError.self) { try IPv4Header(decoding: bytes.raw, at: 14) }
        bytes[bit / 8] ^= 0x80 >> UInt8(bit % 8)
      }
    }
    expectError(.ipHeaderChecksum) { try decode(.udp { $0.checksumError = 1 }) }
  }

  @Test("RFC 791 §3.2: more fragments, or an offset, make a fragment; DF and the reserved bit do not")
  func fragments() throws {
    for (field, isFragment) in [(0x2000, true), (0x0001, true), (0x1000, true), (0x4000, false), (0x8000, false)] {
      #expect(try decode(.udp { $0.fragmentField = UInt16(field) }).isFragment == isFragment)
    }
  }

  @Test("RFC 791 §3.1: a payload that the total length cannot say is refused, the longest one is not")
  func payloadTooLong() throws {
    for length in [65516, -1, Int.max, Int.min] {
      expectError(.payloadTooLong) {
        try IPv4Header(source: Here.ip, destination: There.ip, protocol: .udp, payloadLength: length)
      }
    }
    let header = try IPv4Header(source: Here.ip, destination: There.ip, protocol: .udp, payloadLength: 65515)
    #expect(header.totalLength == 65535)
  }

  @Test("A header that does not fit is truncated, and nothing is written")
  func truncation() throws {
    expectError(.truncated) { try IPv4Header(decoding: published.raw, at: 1) }
    expectError(.truncated) { try IPv4Header(decoding: published.raw, at: -1) }
    let header = try IPv4Header(source: Here.ip, destination: There.ip, protocol: .udp, payloadLength: 0)
    var short = [UInt8](repeating: 0xEE, count: 19)
    expectError(.truncated) {
      try withMutableSpan(&short) { span throws(PacketFormatError) in try header.encode(into: &span) }
    }
    #expect(short == [UInt8](repeating: 0xEE, count: 19))
  }

  @Test("Encoding drops the options of a decoded header: five words, and the total length follows")
  func encodingDropsOptions() throws {
    let header = try decode(.udp { $0.options = [7, 7, 4, 0, 0, 0, 0, 0] })
    #expect(header.headerLength == 28 && header.payloadLength == 13)
    var written = [UInt8](repeating: 0, count: 33)
    try withMutableSpan(&written) { span throws(PacketFormatError) in try header.encode(into: &span) }
    let again = try IPv4Header(decoding: written.raw)
    #expect(again.headerLength == 20 && again.payloadLength == 13 && again.source == header.source)
  }
}

@Suite("IPv4 options (RFC 791 §3.1)")
struct IPv4OptionsTests {
  private func check(_ options: [UInt8]) throws {
    let bytes = IPv4Frame.udp { $0.options = options }.bytes
    let header = try IPv4Header(decoding: bytes.raw, at: 14)
    try IPv4Options.check(bytes.raw, at: 14, header: header)
  }

  @Test(
    "Well-formed options pass: none, no operation, end of list, record route, router alert, the longest",
    arguments: [
      [], [1, 1, 1, 1], [0, 131, 0, 0], [7, 7, 4, 0, 0, 0, 0, 0], [148, 4, 0, 0], [1, 1, 68, 2],
      [7, 40] + [UInt8](repeating: 0, count: 38),
    ] as [[UInt8]])
  func wellFormed(_ options: [UInt8]) throws {
    try check(options)
  }

  @Test(
    "RFC 7126 §4.3, §4.4: loose and strict source routes are found, behind other options too",
    arguments: [[131, 3, 4, 0], [137, 3, 4, 0], [1, 1, 7, 3, 4, 131, 3, 4], [131, 2, 0, 0]] as [[UInt8]])
  func sourceRoutes(_ options: [UInt8]) {
    expectError(.ipSourceRoute) { try check(options) }
  }

  @Test(
    "Options without a length, with an impossible one, or running over the end are malformed",
    arguments: [[1, 1, 1, 7], [7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 4, 0], [131, 255, 4, 0], [1, 1, 7, 3]] as [[UInt8]])
  func malformed(_ options: [UInt8]) {
    expectError(.ipOptions) { try check(options) }
  }

  @Test("A header that is not inside the bytes is truncated")
  func truncated() throws {
    let bytes = IPv4Frame.udp { $0.options = [1, 1, 1, 1] }.bytes
    let header = try IPv4Header(decoding: bytes.raw, at: 14)
    expectError(.truncated) {
      try IPv4Options.check(bytes.raw.extracting(first: 37), at: 14, header: header)
    }
  }
}
