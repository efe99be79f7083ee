import Netdev
import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

/// The flows that are built here.
enum Flows {
  static let v4 = UDPFrame(
    sourceMAC: There.mac, destinationMAC: Here.mac, source: There.ip, destination: Here.ip, sourcePort: 5000,
    destinationPort: 50001)
  static let v6 = UDPv6Frame(
    sourceMAC: There.mac, destinationMAC: Here.mac, source: There.ipv6, destination: Here.ipv6, sourcePort: 5000,
    destinationPort: 50001)
}

@Suite("Packets built with their headers")
struct BuilderTests {
  private let pool: PacketPool

  init() throws { pool = try PacketPool(.init(slots: 64, hugePages: false)) }

  @Test("A datagram is the same around a copy of its payload and in front of it, byte for byte")
  func udp() throws {
    var random = SeededRandom(seed: 5)
    for length in Array(0..<70) + [1452, 1472, 1800, 5000] {
      let payload = random.bytes(length)
      let expected = IPv4Frame.udp(to: 50001, payload) {
        ($0.identification, $0.fragmentField, $0.timeToLive) = (0, 0x4000, 64)
      }.bytes
      #expect([UInt8](try Flows.v4.makePacket(payload: payload, in: pool)) == expected)
      let around = try Packet(copying: payload, in: pool)
      #expect([UInt8](try Flows.v4.makePacket(around: around)) == expected)

      let expected6 = IPv6Frame.udp(to: 50001, payload) { ($0.hopLimit, $0.flowLabel) = (64, 0) }.bytes
      #expect([UInt8](try Flows.v6.makePacket(payload: payload, in: pool)) == expected6)
      let around6 = try Packet(copying: payload, in: pool)
      #expect([UInt8](try Flows.v6.makePacket(around: around6)) == expected6)
      let (flow, range) = try UDPv6Frame.decode(expected6.raw)
      #expect(flow == Flows.v6 && Array(expected6[range]) == payload && flow.reversed.reversed == flow)
    }
  }

  @Test("Headers go into the headroom: nothing is copied; what somebody else holds stays as it was")
  func headroom() throws {
    let payload = try Packet(copying: Array("hello".utf8), in: pool)
    let packet = try Flows.v6.makePacket(around: payload)
    #expect(pool.copies == 1, "`payload` is still held here")
    #expect(payload.count == 5 && packet.count == 67)
    func make() throws -> Packet { try Packet(copying: Array("hello".utf8), in: pool) }
    var tagged = try Flows.v4.makePacket(around: try make())
    try tagged.pushVLANTag(VLANTag(identifier: 7))
    #expect(pool.copies == 1 && tagged.isInPool)
  }

  @Test("What is put in front of a packet owes nothing to what lay in its buffer before")
  func dirtyBuffers() throws {
    func built(in pool: PacketPool) throws -> [[UInt8]] {
      var packets: [Packet] = []
      for length in [0, 1, 22, 300] {
        let payload = [UInt8](repeating: 7, count: length)
        packets.append(try Flows.v4.makePacket(around: try Packet(copying: payload, in: pool)))
        packets.append(try Flows.v6.makePacket(around: try Packet(copying: payload, in: pool)))
        for var packet in packets.suffix(2) {
          try packet.pushVLANTag(VLANTag(identifier: 5))
          packets.append(packet)
          try packet.prepend(count: 30)
          packets.append(packet)
        }
        let question = try Flows.v4.makePacket(payload: payload, in: pool)
        packets.append(try ICMPv4Error.timeExceeded.makePacket(about: question, from: Here.ip))
        let question6 = try Flows.v6.makePacket(payload: payload, in: pool)
        packets.append(try ICMPv6Error.timeExceeded.makePacket(about: question6, from: Here.ipv6))
      }
      return packets.map { [UInt8]($0) }
    }
    let dirty = try (0..<pool.configuration.slots).map { _ in
      var packet = try Packet(count: 1500, in: pool)
      try packet.prepend(count: 64)
      packet.withMutableBytes { bytes in
        for offset in 0..<bytes.byteCount { bytes.storeBytes(of: 0xEE, toByteOffset: offset, as: UInt8.self) }
      }
      return packet
    }
    #expect(pool.free == 0)
    _ = consume dirty
    let clean = try PacketPool(.init(slots: 64, hugePages: false))
    #expect(try built(in: pool) == built(in: clean))
  }

  @Test("A datagram over IPv6 is refused without a checksum, by family, and as a fragment")
  func decoding() {
    let cases: [(PacketFormatError.Reason, IPv6Frame)] = [
      (.udpChecksum, .udp(checksum: 0)), (.udpChecksum, .udp(checksumError: 1)), (.udpLength, .udp(length: 7)),
      (.otherProtocol, .icmp()), (.otherProtocol, .udp { $0.etherType = [8, 0] }),
      (.vlanTagged, .udp { $0.etherType = [0x81, 0] }),
      (.ipFragment, .udp { $0.extensions = [(44, [0, 0, 0, 1, 0, 0, 0, 0])] }),
    ]
    for (reason, frame) in cases {
      let bytes = frame.bytes
      expectError(reason) { try UDPv6Frame.decode(bytes.raw) }
    }
    for length in 0..<IPv6Frame.udp().bytes.count {
      let bytes = Array(IPv6Frame.udp().bytes.prefix(length))
      #expect(throws: PacketFormatError.self) { try UDPv6Frame.decode(bytes.raw) }
    }
  }

  @Test("A payload that no frame holds is refused")
  func tooLong() throws {
    let payload = [UInt8](repeating: 0, count: 65_493)
    #expect(try Flows.v4.makePacket(payload: payload, in: pool).count == 65_535)
    expectError(.payloadTooLong) { try Flows.v4.makePacket(payload: payload + [0], in: pool) }
    expectError(.payloadTooLong) { try Flows.v6.makePacket(payload: payload, in: pool) }
    let packet = try Packet(copying: payload + [0], in: pool)
    expectError(.payloadTooLong) { try Flows.v4.makePacket(around: packet) }
  }

  @Test("ARP: a request to all, a probe, a reply to who asked")
  func arp() throws {
    let request = ARPPacket.request(for: Here.ip, from: There.ip, hardwareAddress: There.mac)
    #expect([UInt8](try request.makePacket(in: pool)) == ARPFrame(padding: []).bytes)
    let probe = ARPPacket.request(for: Here.ip, from: .unspecified, hardwareAddress: There.mac)
    #expect([UInt8](try probe.makePacket(in: pool)) == ARPFrame(senderIP: [0, 0, 0, 0], padding: []).bytes)
    let reply = [UInt8](try request.reply(from: Here.mac).makePacket(in: pool))
    let expected = ARPFrame(
      destinationMAC: There.macBytes, sourceMAC: Here.macBytes, operation: 2, senderMAC: Here.macBytes,
      senderIP: Here.ipBytes, targetMAC: There.macBytes, targetIP: There.ipBytes, padding: [])
    #expect(reply == expected.bytes)
    #expect([UInt8](try request.makePacket(in: pool, to: Here.mac)).prefix(6) == Here.macBytes[...])
  }

  @Test("Neighbor discovery: a question to the group, one to a station, a probe, answers and announcements")
  func neighbors() throws {
    var question = NeighborSolicitation(target: Here.ipv6, source: There.ipv6, hardwareAddress: There.mac)
    #expect([UInt8](try question.makePacket(in: pool)) == IPv6Frame.solicitation { $0.flowLabel = 0 }.bytes)
    let direct = IPv6Frame.solicitation { ($0.flowLabel, $0.destination) = (0, Here.ipv6Bytes) }.bytes
    #expect([UInt8](try question.makePacket(in: pool, to: Here.mac)) == direct)
    question.source = .unspecified
    #expect([UInt8](try question.makePacket(in: pool)) == IPv6Frame.probe { $0.flowLabel = 0 }.bytes)

    let answer = NeighborAdvertisement(target: Here.ipv6, hardwareAddress: Here.mac, isSolicited: true)
    #expect(
      [UInt8](try answer.makePacket(in: pool, to: There.ipv6, at: There.mac))
        == IPv6Frame.answer(for: Here.ipv6Bytes, to: There.ipv6Bytes))
    expectError(.neighborFlags) { try answer.makePacket(in: pool) }
    let announcement = NeighborAdvertisement(target: Here.ipv6, hardwareAddress: Here.mac, isSolicited: false)
    #expect(
      [UInt8](try announcement.makePacket(in: pool))
        == IPv6Frame.answer(
          for: Here.ipv6Bytes, to: IPv6Bytes.allNodes, mac: IPv6Bytes.multicastMAC(IPv6Bytes.allNodes), flags: 0x20))
  }

  @Test("What does not fit is refused by every builder, and nothing is written")
  func noRoom() throws {
    let request = ARPPacket.request(for: Here.ip, from: There.ip, hardwareAddress: There.mac)
    let question = NeighborSolicitation(target: Here.ipv6, source: There.ipv6, hardwareAddress: There.mac)
    let answer = NeighborAdvertisement(target: Here.ipv6, hardwareAddress: Here.mac, isSolicited: false)
    let frame = IPv4Frame.udp().bytes
    let quote = try ICMPv4Error.quote(frame.raw)
    let frame6 = IPv6Frame.udp().bytes
    let quote6 = try ICMPv6Error.timeExceeded.quote(frame6.raw)
    let builders: [(Int, (inout MutableRawSpan) throws(PacketFormatError) -> Int)] = [
      (42, { (bytes) throws(PacketFormatError) in try request.encodeFrame(into: &bytes) }),
      (86, { (bytes) throws(PacketFormatError) in try question.encodeFrame(into: &bytes) }),
      (86, { (bytes) throws(PacketFormatError) in try answer.encodeFrame(into: &bytes) }),
      (62, { (bytes) throws(PacketFormatError) in try Flows.v6.encode(into: &bytes, payloadLength: 0) }),
      (
        75,
        { (bytes) throws(PacketFormatError) in
          try ICMPv4Error.timeExceeded.encode(into: &bytes, quoting: quote, from: Here.ip)
        }
      ),
      (
        115,
        { (bytes) throws(PacketFormatError) in
          try ICMPv6Error.timeExceeded.encode(into: &bytes, quoting: quote6, from: Here.ipv6)
        }
      ),
    ]
    for (length, build) in builders {
      for room in [0, 13, 41, length - 1] {
        var bytes = [UInt8](repeating: 0xEE, count: room)
        expectError(.truncated) { try withMutableSpan(&bytes, build) }
        #expect(bytes == [UInt8](repeating: 0xEE, count: room))
      }
      var bytes = [UInt8](repeating: 0xEE, count: length + 1)
      #expect(try withMutableSpan(&bytes, build) == length && bytes[length] == 0xEE)
    }
  }
}
