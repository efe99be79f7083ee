import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("ICMP messages (RFC 792)")
struct ICMPTests {
  private func decode(_ frame: IPv4Frame) throws(PacketFormatError) -> ICMPv4Message {
    let bytes = frame.payload
    return try ICMPv4Message(decoding: bytes.raw, length: bytes.count)
  }

  @Test("RFC 792: an echo request is read field by field")
  func fields() throws {
    let message = try decode(.icmp(identifier: 0x1234, sequence: 0x5678))
    #expect(message.kind == .echoRequest && message.code == 0 && message.length == 15)
    #expect(message.identifier == 0x1234 && message.sequenceNumber == 0x5678)
  }

  @Test("RFC 792: the reply is the request with another type, and its checksum is right", arguments: 0..<64)
  func reply(_ length: Int) throws {
    var random = SeededRandom(seed: UInt64(length))
    var bytes = IPv4Frame.icmp(identifier: UInt16(length), random.bytes(length)).payload
    let request = bytes
    let message = try ICMPv4Message(decoding: bytes.raw, length: bytes.count)
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in try message.encodeEchoReply(into: &span) }
    #expect(bytes[0] == 0 && bytes[1] == 0 && bytes[4...] == request[4...])
    #expect(referenceChecksum(bytes) == 0)
  }

  @Test("RFC 1071: the reply of zeros throughout has the checksum 0xFFFF, where an RFC 1624 update would leave 0")
  func replyOfZeros() throws {
    var bytes = IPv4Frame.icmp(identifier: 0, sequence: 0, [0, 0, 0, 0]).payload
    let message = try ICMPv4Message(decoding: bytes.raw, length: bytes.count)
    #expect(InternetChecksum.updated(0xF7FF, replacing: 0x0800 as UInt16, with: 0) == 0)
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in try message.encodeEchoReply(into: &span) }
    #expect(bytes == [0, 0, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test("RFC 792: a message below eight bytes is refused; one that is not there is truncated")
  func lengths() {
    let bytes = IPv4Frame.icmp(identifier: 0, sequence: 0, [0, 0]).payload
    for length in 0..<8 {
      expectError(.icmpLength) { try ICMPv4Message(decoding: bytes.raw, length: length) }
    }
    for (offset, length) in [(0, 11), (1, 10), (-1, 8), (0, -1), (Int.max, 8), (0, Int.max)] {
      expectError(.truncated) {
        try ICMPv4Message(decoding: bytes.raw, at: offset, length: length)
      }
    }
  }

  @Test("RFC 792: every bit of the message is under the checksum")
  func checksum() throws {
    var bytes = IPv4Frame.icmp().payload
    for bit in 0..<(bytes.count * 8) {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      expectError(.icmpChecksum) { try ICMPv4Message(decoding: bytes.raw, length: bytes.count) }
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
  }

  @Test("An echo request is built in front of its data")
  func build() throws {
    var bytes = [0xEE, 0, 0, 0, 0, 0, 0, 0, 0] + Array("abcdefg".utf8) + [0xEE]
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try ICMPv4Message.encodeEcho(
        .echoRequest, identifier: 0xBEEF, sequenceNumber: 1, dataLength: 7, into: &span, at: 1)
    }
    #expect(bytes == [0xEE] + IPv4Frame.icmp().payload + [0xEE])
    let untouched = bytes
    for (length, offset) in [(9, 1), (-1, 0), (Int.max, 0), (0, 10), (0, -1)] {
      expectError(.truncated) {
        try withMutableSpan(&bytes) { span throws(PacketFormatError) in
          try ICMPv4Message.encodeEcho(
            .echoRequest, identifier: 1, sequenceNumber: 1, dataLength: length, into: &span, at: offset)
        }
      }
    }
    #expect(bytes == untouched)
  }
}

@Suite("UDP datagrams (RFC 768)")
struct UDPTests {
  private var pseudoHeader: InternetChecksum {
    get throws {
      try IPv4Header(source: There.ip, destination: Here.ip, protocol: .udp, payloadLength: 0).pseudoHeader
    }
  }

  private func decode(_ frame: IPv4Frame, available: Int? = nil) throws -> UDPHeader {
    let bytes = frame.payload
    return try UDPHeader(decoding: bytes.raw, available: available ?? bytes.count, pseudoHeader: pseudoHeader)
  }

  @Test("RFC 768: ports, length and checksum are read")
  func fields() throws {
    let header = try decode(.udp(from: 5000, to: 7))
    #expect(header.sourcePort == 5000 && header.destinationPort == 7)
    #expect(header.payloadLength == 5 && header.datagramLength == 13 && header.checksum == 0x9470)
    let reversed = header.reversed
    #expect(reversed.sourcePort == 7 && reversed.destinationPort == 5000)
    #expect(reversed.checksum == 0x9470 && reversed.payloadLength == 5)
  }

  @Test("RFC 768: a length below eight bytes or beyond the packet is refused")
  func lengths() throws {
    for length in [0, 7, 14, 65535] {
      expectError(.udpLength) { try decode(.udp(length: length, checksum: 0)) }
    }
    expectError(.udpLength) { try decode(.udp(), available: 7) }
    #expect(try decode(.udp([])).payloadLength == 0)
  }

  @Test("RFC 768: bytes of the packet behind the datagram are not part of it")
  func surplus() throws {
    #expect(try decode(.udp(surplus: [1, 2, 3])).payloadLength == 5)
  }

  @Test("RFC 768: every bit of datagram and pseudo-header is under the checksum")
  func checksum() throws {
    var bytes = IPv4Frame.udp().payload
    let pseudoHeader = try pseudoHeader
    for bit in 0..<(bytes.count * 8) where bit / 8 != 4 && bit / 8 != 5 {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      expectError(.udpChecksum) {
        try UDPHeader(decoding: bytes.raw, available: bytes.count, pseudoHeader: pseudoHeader)
      }
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    let other = try IPv4Header(source: There.ip, destination: There.ip, protocol: .udp, payloadLength: 0).pseudoHeader
    expectError(.udpChecksum) {
      try UDPHeader(decoding: bytes.raw, available: bytes.count, pseudoHeader: other)
    }
    // The length is in the sum twice; a shorter one with the old checksum must not pass.
    bytes[5] = 12
    expectError(.udpChecksum) {
      try UDPHeader(decoding: bytes.raw, available: bytes.count, pseudoHeader: pseudoHeader)
    }
  }

  @Test("RFC 768: a checksum of zero says that there is none")
  func noChecksum() throws {
    let header = try decode(.udp(checksum: 0))
    #expect(header.checksum == 0 && header.payloadLength == 5)
  }

  @Test("RFC 768: a computed checksum of zero is sent as all ones")
  func zeroChecksum() throws {
    // Two bytes with which the sum over this datagram is all ones.
    var bytes: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0xD8, 0x48]
    let pseudoHeader = try pseudoHeader
    let header = try UDPHeader(sourcePort: 5000, destinationPort: 7, payloadLength: 2)
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try header.encode(into: &span, pseudoHeader: pseudoHeader)
    }
    #expect(bytes[6...7] == [0xFF, 0xFF])
    #expect(try UDPHeader(decoding: bytes.raw, available: 10, pseudoHeader: pseudoHeader).checksum == 0xFFFF)
  }

  @Test("A header is built in front of its payload, with the checksum over both")
  func build() throws {
    var bytes = [0xEE, 0, 0, 0, 0, 0, 0, 0, 0] + Array("hello".utf8) + [0xEE]
    let pseudoHeader = try pseudoHeader
    let header = try UDPHeader(sourcePort: 5000, destinationPort: 7, payloadLength: 5)
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try header.encode(into: &span, at: 1, pseudoHeader: pseudoHeader)
    }
    #expect(bytes == [0xEE] + IPv4Frame.udp().payload + [0xEE])
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in try header.encode(into: &span, at: 1) }
    #expect(bytes[7...8] == [0, 0], "a header without checksum is written without one")
  }

  @Test("What does not fit is refused and nothing is written")
  func truncation() throws {
    for length in [65528, -1, Int.max] {
      expectError(.payloadTooLong) {
        try UDPHeader(sourcePort: 1, destinationPort: 2, payloadLength: length)
      }
    }
    #expect(try UDPHeader(sourcePort: 1, destinationPort: 2, payloadLength: 65527).datagramLength == 65535)
    let bytes = IPv4Frame.udp().payload
    let pseudoHeader = try pseudoHeader
    for (offset, available) in [(0, 14), (1, 13), (-1, 13), (0, Int.max), (0, -1)] {
      expectError(.truncated) {
        try UDPHeader(decoding: bytes.raw, at: offset, available: available, pseudoHeader: pseudoHeader)
      }
    }
    var short = [UInt8](repeating: 0xEE, count: 12)
    let header = try UDPHeader(sourcePort: 1, destinationPort: 2, payloadLength: 5)
    expectError(.truncated) {
      try withMutableSpan(&short) { span throws(PacketFormatError) in
        try header.encode(into: &span, pseudoHeader: pseudoHeader)
      }
    }
    expectError(.truncated) {
      try withMutableSpan(&short) { span throws(PacketFormatError) in try header.encode(into: &span, at: 5) }
    }
    #expect(short == [UInt8](repeating: 0xEE, count: 12))
  }
}
