import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("UDP frames of a gateway")
struct UDPFrameTests {
  private let flow = UDPFrame(
    sourceMAC: There.mac, destinationMAC: Here.mac, source: There.ip, destination: Here.ip, sourcePort: 5000,
    destinationPort: 7)

  private func decode(_ frame: IPv4Frame) throws -> (flow: UDPFrame, payload: Range<Int>) {
    let bytes = frame.bytes
    return try UDPFrame.decode(bytes.raw)
  }

  @Test("Headers are built in front of a payload at byte 42, both checksums right")
  func build() throws {
    var bytes = [UInt8](repeating: 0, count: 42) + Array("hello".utf8) + [0xEE]
    let length = try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      try flow.encode(into: &span, payloadLength: 5)
    }
    let expected = IPv4Frame.udp {
      ($0.identification, $0.fragmentField, $0.timeToLive) = (0, 0x4000, 64)
    }
    #expect(length == 47)
    #expect(bytes == expected.bytes + [0xEE])
  }

  @Test("What is built is taken apart again, for payloads of every length up to an Ethernet frame's")
  func roundTrip() throws {
    var random = SeededRandom(seed: 42)
    for length in Array(0..<70) + [1471, 1472, 9000] {
      let payload = random.bytes(length)
      var bytes = [UInt8](repeating: 0xEE, count: 42) + payload + [1, 2, 3, 4]
      let flow = UDPFrame(
        sourceMAC: There.mac, destinationMAC: Here.mac, source: There.ip, destination: Here.ip,
        sourcePort: UInt16(random.below(65535) + 1), destinationPort: UInt16(random.below(65536)))
      let frameLength = try withMutableSpan(&bytes) { span throws(PacketFormatError) in
        try flow.encode(into: &span, payloadLength: length, timeToLive: 9)
      }
      #expect(frameLength == 42 + length && bytes[22] == 9)
      let (decoded, range) = try UDPFrame.decode(bytes.raw)
      #expect(decoded == flow && decoded.reversed.reversed == flow)
      #expect(bytes[range] == payload[...])
    }
  }

  @Test("Options in front of the datagram and padding behind it are not payload")
  func payloadRange() throws {
    let (decoded, range) = try decode(
      .udp(surplus: [9, 9]) { ($0.options, $0.padding) = ([148, 4, 0, 0], [0, 0, 0]) })
    #expect(decoded == flow && range == 46..<51)
  }

  @Test("Every check of the formats is made")
  func checks() {
    let cases: [(PacketFormatError.Reason, IPv4Frame)] = [
      (.vlanTagged, .udp { $0.etherType = [0x81, 0x00] }),
      (.otherProtocol, .udp { $0.etherType = [0x86, 0xDD] }),
      (.otherProtocol, .icmp()),
      (.ipVersion, .udp { $0.version = 6 }),
      (.ipHeaderLength, .udp { $0.headerWords = 4 }),
      (.ipTotalLength, .udp { $0.totalLength = 34 }),
      (.ipHeaderChecksum, .udp { $0.checksumError = 1 }),
      (.ipFragment, .udp { $0.fragmentField = 0x2000 }),
      (.ipSourceRoute, .udp { $0.options = [131, 3, 4, 0] }),
      (.ipOptions, .udp { $0.options = [7, 1, 0, 0] }),
      (.udpLength, .udp(length: 7, checksum: 0)),
      (.udpChecksum, .udp(checksumError: 1)),
    ]
    for (reason, frame) in cases {
      expectError(reason) { try decode(frame) }
    }
    let short = Array(IPv4Frame.udp().bytes.prefix(13))
    expectError(.truncated) { try UDPFrame.decode(short.raw) }
  }

  @Test("Whom nobody can answer is read all the same, and said with what keeps an answer from it")
  func answerable() throws {
    let discover = try decode(.udp(from: 68, to: 67) { $0.source = [0, 0, 0, 0] }).0
    #expect(discover.source == .unspecified && discover.sourcePort == 68)
    let cases: [(PacketFormatError.Found, IPv4Frame)] = [
      (.ipv4(.unspecified), .udp(from: 68, to: 67) { $0.source = [0, 0, 0, 0] }),
      (.number(0), .udp(from: 0)),
      (.ipv4(.loopback), .udp { $0.source = [127, 0, 0, 1] }),
      (.ipv4(IPv4Address(224, 0, 0, 1)), .udp { $0.source = [224, 0, 0, 1] }),
      (.station(.broadcast), .udp { $0.sourceMAC = [UInt8](repeating: 0xFF, count: 6) }),
    ]
    for (found, frame) in cases {
      let flow = try decode(frame).0
      #expect(throws: PacketFormatError(.unanswerable, found)) { try flow.checkAnswerable() }
    }
    try decode(.udp()).0.checkAnswerable()
  }

  @Test("What does not fit is refused and nothing is written")
  func limits() {
    var bytes = [UInt8](repeating: 0xEE, count: 46)
    let cases: [(Int, PacketFormatError.Reason)] = [
      (5, .truncated), (65507, .truncated), (65508, .payloadTooLong), (-1, .payloadTooLong), (Int.max, .payloadTooLong),
    ]
    for (length, reason) in cases {
      expectError(reason) {
        try withMutableSpan(&bytes) { span throws(PacketFormatError) in
          try flow.encode(into: &span, payloadLength: length)
        }
      }
    }
    #expect(bytes == [UInt8](repeating: 0xEE, count: 46))
  }
}

@Suite("ARP answers of an owner of many addresses (RFC 826, RFC 5227)")
struct ARPAnswerTests {
  /// A gateway at ``Here`` that owns all of 10.0.7.0/24.
  private func answer(_ bytes: inout [UInt8], length: Int? = nil) throws -> ARPAnswer {
    let owned = try #require(IPv4Network("10.0.7.0/24"))
    let length = length ?? bytes.count
    return try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      ARPPacket.answer(&span, length: length, hardwareAddress: Here.mac) { owned.contains($0) }
    }
  }

  @Test("RFC 826: a request for any owned address is answered to its sender, without padding")
  func request() throws {
    for last in [0, 1, 77, 255] as [UInt8] {
      var bytes = ARPFrame(targetIP: [10, 0, 7, last]).bytes
      #expect(try answer(&bytes) == .reply(length: 42))
      let reply = ARPFrame(
        destinationMAC: There.macBytes, sourceMAC: Here.macBytes, operation: 2, senderMAC: Here.macBytes,
        senderIP: [10, 0, 7, last], targetMAC: There.macBytes, targetIP: There.ipBytes)
      #expect(bytes == reply.bytes)
    }
  }

  @Test("RFC 826: replies are handed over to be learned from")
  func reply() throws {
    var bytes = ARPFrame(operation: 2, targetIP: [10, 0, 7, 1]).bytes
    guard case .received(let packet) = try answer(&bytes) else {
      Issue.record("a reply was not handed over")
      return
    }
    #expect(packet.senderHardwareAddress == There.mac && packet.senderProtocolAddress == There.ip)
  }

  @Test("What is not answered is told apart, and the frame is left as it was")
  func others() throws {
    let target: [UInt8] = [10, 0, 7, 1]
    let cases: [(ARPAnswer, ARPFrame)] = [
      (.otherAddress, ARPFrame(targetIP: [10, 0, 8, 1])),
      (.unknownOperation, ARPFrame(operation: 3, targetIP: target)),
      (.unknownOperation, ARPFrame(operation: 0, targetIP: target)),
      (.conflict, ARPFrame(senderIP: [10, 0, 7, 9], targetIP: target)),
      (.conflict, ARPFrame(senderIP: [10, 0, 7, 9], targetIP: [10, 0, 7, 9])),
      (.conflict, ARPFrame(operation: 2, senderIP: [10, 0, 7, 9], targetIP: [10, 0, 99, 9])),
      (.invalidSender, ARPFrame(senderMAC: [1, 0, 0, 0, 0, 2], targetIP: target)),
      (.invalidSender, ARPFrame(senderMAC: [0, 0, 0, 0, 0, 0], targetIP: target)),
      (.invalidSender, ARPFrame(senderMAC: Here.macBytes, targetIP: target)),
      (.invalidSender, ARPFrame(senderIP: [224, 0, 0, 1], targetIP: target)),
      (.invalidSender, ARPFrame(senderIP: [255, 255, 255, 255], targetIP: target)),
      (.invalidSender, ARPFrame(senderIP: [127, 0, 0, 1], targetIP: target)),
      (.invalidSender, ARPFrame(senderIP: [0, 0, 0, 1], targetIP: target)),
      (.invalidSender, ARPFrame(operation: 2, senderIP: [0, 0, 0, 0], targetIP: target)),
      (
        .malformed(PacketFormatError(.arpAddressSpace, .number(0x0006_0800_0604))),
        ARPFrame(hardwareType: 6, targetIP: target)
      ),
    ]
    for (expected, frame) in cases {
      var bytes = frame.bytes
      #expect(try answer(&bytes) == expected)
      #expect(bytes == frame.bytes)
    }
  }

  @Test("RFC 5227 §1.1: a probe, sent from 0.0.0.0, is answered, which defends the address")
  func probe() throws {
    var bytes = ARPFrame(senderIP: [0, 0, 0, 0], targetIP: [10, 0, 7, 1]).bytes
    #expect(try answer(&bytes) == .reply(length: 42))
    #expect(bytes[0..<6] == There.macBytes[...] && bytes[38..<42] == [0, 0, 0, 0])
  }

  @Test("A frame cut short, or of another type, is malformed")
  func malformed() throws {
    var bytes = ARPFrame(targetIP: [10, 0, 7, 1]).bytes
    #expect(try answer(&bytes, length: 41) == .malformed(PacketFormatError(.truncated, .length(42, limit: 41))))
    bytes[13] = 0x00
    #expect(try answer(&bytes) == .malformed(PacketFormatError(.otherProtocol, .etherType(.ipv4))))
    var short = Array(ARPFrame(targetIP: [10, 0, 7, 1]).bytes.prefix(41))
    #expect(try answer(&short, length: 60) == .malformed(PacketFormatError(.truncated, .length(42, limit: 41))))
  }
}
