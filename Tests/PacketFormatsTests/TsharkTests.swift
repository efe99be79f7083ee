import Netdev
import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("What is built here, read by tshark", .enabled(if: Tshark.path != nil, Tshark.skip))
struct TsharkTests {
  /// Every builder, plain, tagged once and twice, and after changes in place.
  private func frames() throws -> [[UInt8]] {
    let pool = try PacketPool(.init(slots: 64, hugePages: false))
    var random = SeededRandom(seed: 2026)
    var packets: [Packet] = []
    for length in [0, 1, 18, 19, 100, 1001] {
      packets.append(try Flows.v4.makePacket(payload: random.bytes(length), in: pool))
      packets.append(try Flows.v6.makePacket(around: try Packet(copying: random.bytes(length), in: pool)))
    }
    let request = ARPPacket.request(for: Here.ip, from: There.ip, hardwareAddress: There.mac)
    packets.append(try request.makePacket(in: pool))
    packets.append(try request.reply(from: Here.mac).makePacket(in: pool))
    var question = NeighborSolicitation(target: Here.ipv6, source: There.ipv6, hardwareAddress: There.mac)
    packets.append(try question.makePacket(in: pool))
    question.source = .unspecified
    packets.append(try question.makePacket(in: pool))
    let answer = NeighborAdvertisement(target: Here.ipv6, hardwareAddress: Here.mac, isSolicited: true)
    packets.append(try answer.makePacket(in: pool, to: There.ipv6, at: There.mac))
    for error in [
      .timeExceeded, .reassemblyTimeExceeded, .unreachable(.host), .unreachable(.port), .unreachable(.prohibited),
      .fragmentationNeeded(mtu: 1400), .parameterProblem(pointer: 20),
    ] as [ICMPv4Error] {
      for length in [5, 1001] {
        let question = try Flows.v4.makePacket(payload: random.bytes(length), in: pool)
        packets.append(try error.makePacket(about: question, from: IPv4Address(10, 0, 0, 254)))
      }
    }
    for error in [
      .timeExceeded, .reassemblyTimeExceeded, .unreachable(.noRoute), .unreachable(.port), .packetTooBig(mtu: 1280),
      .parameterProblem(.nextHeader, pointer: 6),
    ] as [ICMPv6Error] {
      for length in [5, 1401] {
        let question = try Flows.v6.makePacket(payload: random.bytes(length), in: pool)
        packets.append(try error.makePacket(about: question, from: Here.ipv6))
      }
    }
    // The same, passed on by a router that translates the addresses of the datagrams.
    for packet in packets {
      var passed = packet
      let isDone = try? passed.withMutableInternetFrame { frame throws(PacketFormatError) in
        guard frame.hopLimit != 255, frame.decrementHopLimit() else { return false }
        if frame.isIPv6 {
          try frame.setSource(IPv6Address(high: 0xFD01_0000_0000_0000, low: 9))
          try frame.setDestination(IPv6Address(high: 0xFD02_0000_0000_0000, low: 0xFFFF_FFFF))
        } else {
          try frame.setSource(IPv4Address(192, 168, 255, 255 - 1))
          try frame.setDestination(IPv4Address(172, 16, 0, 9))
        }
        if frame.transport == .udp {
          try frame.setSourcePort(40_000)
          try frame.setDestinationPort(0xFFFF)
        }
        return true
      }
      if isDone == true { packets.append(passed) }
    }
    for packet in packets {
      var tagged = packet
      try tagged.pushVLANTag(VLANTag(identifier: 100, priority: 3))
      packets.append(tagged)
      try tagged.pushVLANTag(VLANTag(identifier: 5, etherType: .serviceTag))
      packets.append(tagged)
    }
    return packets.map { [UInt8]($0) }
  }

  @Test("No frame that was built, changed or tagged gets a warning")
  func noComplaint() throws {
    let frames = try frames()
    #expect(frames.count > 200)
    for (frame, complaints) in zip(frames, try Tshark.complaints(about: frames)) {
      #expect(complaints.isEmpty, "\(FrameSummary(frame.raw)): \(complaints)")
    }
  }

  @Test("A frame with one wrong bit in any checksum gets one")
  func complaints() throws {
    let pool = try PacketPool(.init(slots: 64, hugePages: false))
    let datagram = [UInt8](try Flows.v4.makePacket(payload: [1, 2, 3], in: pool))
    let datagram6 = [UInt8](try Flows.v6.makePacket(payload: [1, 2, 3], in: pool))
    let error = [UInt8](try ICMPv4Error.timeExceeded.makePacket(about: datagram.raw, from: Here.ip, in: pool))
    let error6 = [UInt8](try ICMPv6Error.timeExceeded.makePacket(about: datagram6.raw, from: Here.ipv6, in: pool))
    var wrong: [[UInt8]] = []
    for (frame, offset) in [(datagram, 24), (datagram, 40), (datagram6, 60), (error, 36), (error6, 56)] {
      var frame = frame
      frame[offset] ^= 0x10
      wrong.append(frame)
    }
    for (index, complaints) in try Tshark.complaints(about: wrong).enumerated() {
      #expect(!complaints.isEmpty, "frame \(index)")
    }
  }

  @Test("Tags, addresses and ports are read as they were written")
  func fields() throws {
    let pool = try PacketPool(.init(slots: 64, hugePages: false))
    var packet = try Flows.v4.makePacket(payload: [1, 2, 3], in: pool)
    try packet.pushVLANTag(VLANTag(identifier: 100, priority: 3, isDropEligible: true))
    try packet.pushVLANTag(VLANTag(identifier: 5, etherType: .serviceTag))
    let fields = [
      "eth.src", "eth.dst", "vlan.id", "vlan.priority", "ieee8021ad.id", "ip.src", "ip.dst", "udp.srcport",
      "udp.dstport",
    ]
    let values = try Tshark.read([[UInt8](packet)], fields)
    #expect(
      values == [
        ["02:00:00:00:00:02", "02:00:00:00:00:01", "100", "3", "5", "10.0.0.2", "10.0.0.1", "5000", "50001"]
      ])
  }
}
