import Netdev
import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("ICMP errors about packets")
struct ICMPErrorTests {
  private let pool: PacketPool

  init() throws { pool = try PacketPool(.init(slots: 64, hugePages: false)) }

  /// The frame of an error, byte by byte.
  private func expected4(_ front: [UInt8], about frame: IPv4Frame, quoted: Int? = nil) -> [UInt8] {
    let quote = Array((frame.header + frame.payload).prefix(quoted ?? .max))
    var error = IPv4Frame()
    (error.destinationMAC, error.sourceMAC) = (frame.sourceMAC, frame.destinationMAC)
    (error.source, error.destination, error.proto) = ([10, 0, 0, 254], frame.source, 1)
    (error.identification, error.fragmentField, error.timeToLive, error.trafficClass) = (0, 0x4000, 64, 0xC0)
    error.payload = front + quote
    error.payload.replaceSubrange(2..<4, with: bigEndian(referenceChecksum(error.payload), 2))
    return error.bytes
  }

  private func expected6(_ front: [UInt8], about frame: IPv6Frame, quoted: Int? = nil) -> [UInt8] {
    let quote = Array((frame.header + frame.payload).prefix(quoted ?? .max))
    return IPv6Frame.icmp(kind: front[0], code: front[1], rest: Array(front[4...]), quote) {
      ($0.destinationMAC, $0.sourceMAC) = (frame.sourceMAC, frame.destinationMAC)
      ($0.source, $0.destination, $0.flowLabel, $0.hopLimit) = (Here.linkLocalBytes, frame.source, 0, 64)
    }.bytes
  }

  private let router = IPv4Address(10, 0, 0, 254)

  @Test("Each error of IPv4, about a packet and about its bytes")
  func errors4() throws {
    let cases: [(ICMPv4Error, [UInt8])] = [
      (.timeExceeded, [11, 0, 0, 0, 0, 0, 0, 0]), (.reassemblyTimeExceeded, [11, 1, 0, 0, 0, 0, 0, 0]),
      (.unreachable(.network), [3, 0, 0, 0, 0, 0, 0, 0]), (.unreachable(.host), [3, 1, 0, 0, 0, 0, 0, 0]),
      (.unreachable(.protocol), [3, 2, 0, 0, 0, 0, 0, 0]), (.unreachable(.port), [3, 3, 0, 0, 0, 0, 0, 0]),
      (.unreachable(.prohibited), [3, 13, 0, 0, 0, 0, 0, 0]),
      (.fragmentationNeeded(mtu: 1400), [3, 4, 0, 0, 0, 0, 0x05, 0x78]),
      (.parameterProblem(pointer: 20), [12, 0, 0, 0, 20, 0, 0, 0]),
    ]
    let frame = IPv4Frame.udp { ($0.options, $0.padding) = ([148, 4, 0, 0], [0, 0, 0]) }
    for (error, front) in cases {
      let expected = expected4(front, about: frame)
      let bytes = frame.bytes
      #expect([UInt8](try error.makePacket(about: bytes.raw, from: router, in: pool)) == expected)
      let packet = try Packet(copying: bytes, in: pool)
      #expect([UInt8](try error.makePacket(about: packet, from: router)) == expected)
    }
  }

  @Test("Each error of IPv6, about a packet and about its bytes")
  func errors6() throws {
    let cases: [(ICMPv6Error, [UInt8])] = [
      (.timeExceeded, [3, 0, 0, 0, 0, 0, 0, 0]), (.reassemblyTimeExceeded, [3, 1, 0, 0, 0, 0, 0, 0]),
      (.unreachable(.noRoute), [1, 0, 0, 0, 0, 0, 0, 0]), (.unreachable(.prohibited), [1, 1, 0, 0, 0, 0, 0, 0]),
      (.unreachable(.address), [1, 3, 0, 0, 0, 0, 0, 0]), (.unreachable(.port), [1, 4, 0, 0, 0, 0, 0, 0]),
      (.packetTooBig(mtu: 1280), [2, 0, 0, 0, 0, 0, 5, 0]),
      (.parameterProblem(.nextHeader, pointer: 6), [4, 1, 0, 0, 0, 0, 0, 6]),
    ]
    let frame = IPv6Frame.udp { $0.padding = [0, 0, 0] }
    for (error, front) in cases {
      let expected = expected6(front, about: frame)
      let bytes = frame.bytes
      #expect([UInt8](try error.makePacket(about: bytes.raw, from: Here.linkLocal, in: pool)) == expected)
      let packet = try Packet(copying: bytes, in: pool)
      #expect([UInt8](try error.makePacket(about: packet, from: Here.linkLocal)) == expected)
    }
  }

  @Test(
    "No more is quoted than 576 and 1280 bytes hold, whatever the packet's length",
    arguments: [540, 548, 549, 1231, 1232, 1233, 3000])
  func limits(length: Int) throws {
    let frame = IPv4Frame.udp([UInt8](repeating: 9, count: length - 28))
    let bytes = frame.bytes
    let error = try ICMPv4Error.timeExceeded.makePacket(about: Packet(copying: bytes, in: pool), from: router)
    #expect(error.count == 14 + min(28 + length, 576))
    #expect([UInt8](error) == expected4([11, 0, 0, 0, 0, 0, 0, 0], about: frame, quoted: 548))
    let frame6 = IPv6Frame.udp([UInt8](repeating: 9, count: length - 48))
    let bytes6 = frame6.bytes
    let error6 = try ICMPv6Error.timeExceeded.makePacket(about: Packet(copying: bytes6, in: pool), from: Here.linkLocal)
    #expect(error6.count == 14 + min(48 + length, 1280))
    #expect([UInt8](error6) == expected6([3, 0, 0, 0, 0, 0, 0, 0], about: frame6, quoted: 1232))
  }

  @Test("RFC 1122 §3.2.2, RFC 1812 §4.3.2.7: what no error may be about")
  func silence4() {
    let cases: [(PacketFormatError, IPv4Frame)] = [
      (PacketFormatError(.unanswerable, .number(3)), .icmp(kind: 3)),
      (PacketFormatError(.unanswerable, .number(11)), .icmp(kind: 11)),
      (PacketFormatError(.unanswerable, .number(5)), .icmp(kind: 5)),
      (PacketFormatError(.unanswerable, .number(200)), .icmp(kind: 200)),
      (PacketFormatError(.unanswerable, .ipv4(IPv4Address(224, 0, 0, 1))), .udp { $0.destination = [224, 0, 0, 1] }),
      (PacketFormatError(.unanswerable, .ipv4(.broadcast)), .udp { $0.destination = [255, 255, 255, 255] }),
      (
        PacketFormatError(.unanswerable, .station(.broadcast)),
        .udp { $0.destinationMAC = [255, 255, 255, 255, 255, 255] }
      ),
      (PacketFormatError(.unanswerable, .station(.broadcast)), .udp { $0.sourceMAC = [255, 255, 255, 255, 255, 255] }),
      (PacketFormatError(.unanswerable, .ipv4(.unspecified)), .udp { $0.source = [0, 0, 0, 0] }),
      (PacketFormatError(.unanswerable, .ipv4(.loopback)), .udp { $0.source = [127, 0, 0, 1] }),
      (PacketFormatError(.ipFragment), .udp { $0.fragmentField = 1 }),
      (PacketFormatError(.otherProtocol, .etherType(.arp)), .udp { $0.etherType = [8, 6] }),
    ]
    for (error, frame) in cases {
      let bytes = frame.bytes
      #expect(throws: error) { try ICMPv4Error.quote(bytes.raw) }
    }
    // What is asked may be answered, and so may a first fragment.
    for frame in [IPv4Frame.icmp(), .icmp(kind: 13), .udp { $0.fragmentField = 0x2000 }] {
      let bytes = frame.bytes
      #expect(throws: Never.self) { try ICMPv4Error.quote(bytes.raw) }
    }
  }

  @Test("RFC 4443 §2.4 (e): what no error may be about, and the two errors that groups are told")
  func silence6() throws {
    let group: (inout IPv6Frame) -> Void = {
      $0.destination = IPv6Bytes.allNodes
      $0.destinationMAC = IPv6Bytes.multicastMAC(IPv6Bytes.allNodes)
    }
    let cases: [(PacketFormatError, IPv6Frame)] = [
      (PacketFormatError(.unanswerable, .number(1)), .icmp(kind: 1)),
      (PacketFormatError(.unanswerable, .number(127)), .icmp(kind: 127)),
      (PacketFormatError(.unanswerable, .number(137)), .icmp(kind: 137)),
      (
        PacketFormatError(.unanswerable, .number(3)),
        .icmp(kind: 3) { $0.extensions = [(60, [0, 0, 1, 4, 0, 0, 0, 0])] }
      ),
      (PacketFormatError(.unanswerable, .ipv6(.allNodes)), .udp { $0.destination = IPv6Bytes.allNodes }),
      (PacketFormatError(.unanswerable, .station(IPv6Address.allNodes.multicastMAC)), .udp { group(&$0) }),
      (PacketFormatError(.unanswerable, .ipv6(.unspecified)), .udp { $0.source = IPv6Bytes.unspecified }),
      (PacketFormatError(.unanswerable, .ipv6(.allNodes)), .udp { $0.source = IPv6Bytes.allNodes }),
      (PacketFormatError(.ipFragment), .udp { $0.extensions = [(44, [0, 0, 0, 8, 0, 0, 0, 1])] }),
    ]
    for (error, frame) in cases {
      let bytes = frame.bytes
      #expect(throws: error) { try ICMPv6Error.timeExceeded.quote(bytes.raw) }
    }
    let bytes = IPv6Frame.udp { group(&$0) }.bytes
    for error in [ICMPv6Error.packetTooBig(mtu: 1280), .parameterProblem(.option, pointer: 42)] {
      let packet = try error.makePacket(about: bytes.raw, from: Here.linkLocal, station: Here.mac, in: pool)
      #expect([UInt8](packet)[6..<12] == Here.macBytes[...])
      // Without a station the answer would come from the group.
      expectError(.unanswerable) { try error.makePacket(about: bytes.raw, from: Here.linkLocal, in: pool) }
    }
  }

  @Test("An error goes back on the virtual networks that the packet came by")
  func tags() throws {
    let outer = try VLANTag(identifier: 5, etherType: .serviceTag)
    let inner = try VLANTag(identifier: 100, priority: 3)
    var packet = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    try packet.pushVLANTag(inner)
    try packet.pushVLANTag(outer)
    var answer = try ICMPv4Error.timeExceeded.makePacket(about: packet, from: router)
    #expect(answer.popVLANTag() == outer && answer.popVLANTag() == inner && answer.popVLANTag() == nil)
    #expect([UInt8](answer) == expected4([11, 0, 0, 0, 0, 0, 0, 0], about: .udp()))
  }

  @Test("A frame cut at any byte, or changed at any, gets an error inside the rules or none", arguments: 1...2)
  func hostile(seed: UInt64) throws {
    var random = SeededRandom(seed: seed &* 31)
    let bases = [
      IPv4Frame.udp().bytes, IPv4Frame.icmp().bytes, IPv6Frame.udp().bytes,
      IPv6Frame.icmp { $0.extensions = [(60, [0, 0, 1, 4, 0, 0, 0, 0])] }.bytes,
    ]
    for base in bases {
      for length in 0..<base.count {
        let bytes = Array(base.prefix(length))
        #expect(throws: PacketFormatError.self) { try ICMPv4Error.quote(bytes.raw) }
        #expect(throws: PacketFormatError.self) { try ICMPv6Error.timeExceeded.quote(bytes.raw) }
      }
      for _ in 0..<5000 {
        var bytes = base
        for _ in 0...random.below(3) { bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next()) }
        if let packet = try? ICMPv4Error.timeExceeded.makePacket(about: bytes.raw, from: router, in: pool) {
          #expect(packet.count <= 14 + 8 + 576)
        }
        if let packet = try? ICMPv6Error.timeExceeded.makePacket(about: bytes.raw, from: Here.linkLocal, in: pool) {
          #expect(packet.count <= 14 + 8 + 1280)
        }
      }
    }
  }
}
