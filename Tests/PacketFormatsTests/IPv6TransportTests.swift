import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("ICMP messages for IPv6 (RFC 4443)")
struct ICMPv6Tests {
  private let pseudoHeader = sum(There.ipv6Bytes + Here.ipv6Bytes + [0, 58])

  private static func sum(_ bytes: [UInt8]) -> InternetChecksum {
    var sum = InternetChecksum()
    sum.add(bytes.raw)
    return sum
  }

  private func decode(_ bytes: [UInt8], at offset: Int = 0, length: Int? = nil) throws -> ICMPv6Message {
    try ICMPv6Message(decoding: bytes.raw, at: offset, length: length ?? bytes.count, pseudoHeader: pseudoHeader)
  }

  @Test("RFC 4443 §4.1: an echo request is read field by field")
  func fields() throws {
    let message = try decode(IPv6Frame.icmp().payload)
    #expect(message.kind == .echoRequest && message.code == 0 && message.length == 15)
    #expect(message.identifier == 0xBEEF && message.sequenceNumber == 1 && message.rest == 0xBEEF_0001)
  }

  @Test(
    "RFC 4443 §4.2: the reply is the request with another type, its checksum over its own addresses", arguments: 0..<64)
  func reply(_ length: Int) throws {
    var random = SeededRandom(seed: UInt64(length))
    var bytes = IPv6Frame.icmp(random.bytes(length)).payload
    let request = bytes
    let message = try decode(bytes)
    let other = Self.sum(Here.linkLocalBytes + There.ipv6Bytes + [0, 58])
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try message.encodeEchoReply(into: &span, pseudoHeader: other)
    }
    #expect(bytes[0] == 129 && bytes[1] == 0 && bytes[4...] == request[4...])
    #expect(IPv6Frame.checksum(Here.linkLocalBytes, There.ipv6Bytes, 58, bytes) == 0)
  }

  @Test("A message below eight bytes is refused; one that is not there is truncated")
  func lengths() {
    let bytes = IPv6Frame.icmp([0, 0]).payload
    for length in 0..<8 { expectError(.icmpLength) { try decode(bytes, length: length) } }
    for (offset, length) in [(0, 11), (1, 10), (-1, 8), (0, -1), (Int.max, 8), (0, Int.max)] {
      expectError(.truncated) { try decode(bytes, at: offset, length: length) }
    }
  }

  @Test("RFC 4443 §2.3: every bit of message and pseudo-header is under the checksum")
  func checksum() throws {
    var bytes = IPv6Frame.icmp().payload
    for bit in 0..<(bytes.count * 8) {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      expectError(.icmpChecksum) { try decode(bytes) }
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    var header = There.ipv6Bytes + Here.ipv6Bytes + [0, 58]
    for bit in 0..<(header.count * 8) {
      header[bit / 8] ^= 1 << UInt8(bit % 8)
      expectError(.icmpChecksum) {
        try ICMPv6Message(decoding: bytes.raw, length: bytes.count, pseudoHeader: Self.sum(header))
      }
      header[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    // The length is in the pseudo-header too: two zeros behind the message change nothing else.
    let longer = IPv6Frame.icmp([]).payload + [0, 0]
    expectError(.icmpChecksum) { try decode(longer) }
  }

  @Test("An echo request is built in front of its data")
  func build() throws {
    var bytes = [0xEE, 0, 0, 0, 0, 0, 0, 0, 0] + Array("abcdefg".utf8) + [0xEE]
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try ICMPv6Message.encodeEcho(
        .echoRequest, identifier: 0xBEEF, sequenceNumber: 1, dataLength: 7, into: &span, at: 1,
        pseudoHeader: pseudoHeader)
    }
    #expect(bytes == [0xEE] + IPv6Frame.icmp().payload + [0xEE])
    let untouched = bytes
    for (length, offset) in [(9, 1), (-1, 0), (Int.max, 0), (0, 10), (0, -1)] {
      expectError(.truncated) {
        try withMutableSpan(&bytes) { span throws(PacketFormatError) in
          try ICMPv6Message.encodeEcho(
            .echoRequest, identifier: 1, sequenceNumber: 1, dataLength: length, into: &span, at: offset,
            pseudoHeader: pseudoHeader)
        }
      }
    }
    let message = try decode(IPv6Frame.icmp().payload)
    var short = [UInt8](repeating: 0, count: 8)
    expectError(.truncated) {
      try withMutableSpan(&short) { span throws(PacketFormatError) in
        try message.encodeEchoReply(into: &span, at: 1, pseudoHeader: pseudoHeader)
      }
    }
    #expect(bytes == untouched)
  }
}

@Suite("Neighbor discovery (RFC 4861)")
struct NeighborTests {
  private func decode(_ frame: IPv6Frame) throws -> NeighborMessage {
    let bytes = frame.bytes
    let header = try IPv6Header(decoding: bytes.raw, at: 14)
    let payload = try IPv6Payload(decoding: bytes.raw, at: 14, header: header)
    let message = try ICMPv6Message(
      decoding: bytes.raw, at: payload.offset, length: payload.length, pseudoHeader: header.pseudoHeader(for: .icmpv6))
    return try NeighborMessage(decoding: bytes.raw, header: header, payload: payload, message: message)
  }

  @Test("§4.3, §4.4: solicitations and advertisements are read field by field")
  func fields() throws {
    var message = try decode(.solicitation())
    #expect(!message.isAdvertisement && !message.isSolicited && message.target == Here.ipv6)
    #expect(message.hardwareAddress == There.mac)
    message = try decode(.advertisement())
    #expect(message.isAdvertisement && message.isSolicited && message.target == There.ipv6)
    #expect(message.hardwareAddress == There.mac)
    message = try decode(.advertisement(flags: 0xA0, options: []))
    #expect(message.isAdvertisement && !message.isSolicited && message.hardwareAddress == nil)
    // The flags are an advertisement's: a solicitation's bits are reserved and ignored (§4.3).
    message = try decode(
      .icmp(kind: 135, rest: [0x60, 0, 0, 0], Here.ipv6Bytes) { $0.hopLimit = 255 })
    #expect(!message.isSolicited)
  }

  @Test("§4.6: options not known or not of this message are skipped, of several the first counts")
  func options() throws {
    let nonce: [UInt8] = [14, 1, 1, 2, 3, 4, 5, 6]
    let long: [UInt8] = [200, 3] + [UInt8](repeating: 1, count: 22)
    let other: [UInt8] = [1, 1, 2, 9, 9, 9, 9, 9]
    let wanted = [1, 1] + There.macBytes
    #expect(try decode(.solicitation(options: nonce + long + wanted + other)).hardwareAddress == There.mac)
    #expect(try decode(.solicitation(options: [2, 1] + There.macBytes)).hardwareAddress == nil)
    #expect(try decode(.advertisement(options: other)).hardwareAddress == nil)
  }

  @Test("§7.1: what every neighbor message must be")
  func checks() {
    let cases: [(PacketFormatError.Reason, IPv6Frame)] = [
      (.neighborHopLimit, .solicitation { $0.hopLimit = 254 }),
      (.neighborHopLimit, .advertisement { $0.hopLimit = 64 }),
      (.icmpCode, .solicitation(code: 1)), (.icmpCode, .advertisement(code: 255)),
      (.icmpLength, .solicitation(target: Array(Here.ipv6Bytes.prefix(15)), options: [])),
      (.icmpLength, .icmp(kind: 136, []) { $0.hopLimit = 255 }),
      (.neighborTarget, .solicitation(target: IPv6Bytes.allNodes)),
      (.neighborTarget, .advertisement(target: IPv6Bytes.solicitedNode(Here.ipv6Bytes))),
      (.neighborOptions, .solicitation(options: [14, 0, 1, 2, 3, 4, 5, 6])),
      (.neighborOptions, .advertisement(options: [2, 1] + There.macBytes + [14, 0, 1, 2, 3, 4, 5, 6])),
      (.neighborOptions, .solicitation(options: [14, 2, 1, 2, 3, 4, 5, 6])),
      (.neighborOptions, .solicitation(options: [14, 1, 1, 2, 3, 4, 5])),
      (.neighborOptions, .solicitation(options: [1])),
      // A link-layer address of two units is none of Ethernet.
      (.neighborOptions, .solicitation(options: [1, 2] + [UInt8](repeating: 2, count: 14))),
      (.neighborFragment, .solicitation { $0.extensions = [(44, [0, 0, 0, 0, 0, 0, 0, 1])] }),
      (.neighborSource, .probe { $0.destination = Here.ipv6Bytes }),
      (.neighborSource, .probe { $0.destination = IPv6Bytes.allNodes }),
      (.neighborSource, .probe(options: [1, 1] + There.macBytes)),
      (.neighborFlags, .advertisement { $0.destination = IPv6Bytes.allNodes }),
      (.otherProtocol, .icmp { $0.hopLimit = 255 }),
    ]
    for (index, (reason, frame)) in cases.enumerated() {
      expectError(reason, "case \(index)") { try decode(frame) }
    }
  }

  @Test("§7.1.1, §7.1.2: what is right, at the edge of each rule")
  func edges() throws {
    #expect(try decode(.probe()).hardwareAddress == nil)
    #expect(try decode(.probe(options: [14, 1, 1, 2, 3, 4, 5, 6])).target == Here.ipv6)
    #expect(try decode(.solicitation { $0.destination = IPv6Bytes.allNodes }).target == Here.ipv6)
    #expect(try decode(.solicitation(options: [])).hardwareAddress == nil)
    #expect(try !decode(.advertisement(flags: 0x20) { $0.destination = IPv6Bytes.allNodes }).isSolicited)
    #expect(try decode(.solicitation { $0.extensions = [(60, [0, 0, 1, 4, 0, 0, 0, 0])] }).target == Here.ipv6)
  }

  @Test("A message that is not inside the bytes given is truncated")
  func truncated() throws {
    let bytes = IPv6Frame.solicitation().bytes
    let header = try IPv6Header(decoding: bytes.raw, at: 14)
    let payload = try IPv6Payload(decoding: bytes.raw, at: 14, header: header)
    let message = try ICMPv6Message(
      decoding: bytes.raw, at: 54, length: 32, pseudoHeader: header.pseudoHeader(for: .icmpv6))
    expectError(.truncated) {
      try NeighborMessage(
        decoding: bytes.raw.extracting(0..<85), header: header, payload: payload, message: message)
    }
  }

  @Test("§4.4: an advertisement is built where it fits, and nowhere else")
  func build() throws {
    let header = try IPv6Header(
      source: Here.ipv6, destination: There.ipv6, nextHeader: .icmpv6, payloadLength: 32, hopLimit: 255)
    let advertisement = NeighborAdvertisement(target: Here.ipv6, hardwareAddress: Here.mac, isSolicited: true)
    var bytes = [UInt8](repeating: 0xEE, count: 34)
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try advertisement.encode(into: &span, at: 1, pseudoHeader: header.pseudoHeader(for: .icmpv6))
    }
    #expect(bytes == [0xEE] + IPv6Frame.answer(for: Here.ipv6Bytes, to: There.ipv6Bytes)[54...] + [0xEE])
    let untouched = bytes
    for offset in [3, -1, 34, Int.max] {
      expectError(.truncated) {
        try withMutableSpan(&bytes) { span throws(PacketFormatError) in
          try advertisement.encode(into: &span, at: offset, pseudoHeader: header.pseudoHeader(for: .icmpv6))
        }
      }
    }
    #expect(bytes == untouched)
  }
}
