import PacketFormats
import ReferenceFrames
import Responder
import Testing

/// Each frame below is right in all respects but one, so that only the check under test can stop it.
@Suite("Responder: what is dropped over IPv6, and why")
struct IPv6ResponderDropTests {
  private func expectDrop(
    _ reason: DropReason, _ bytes: [UInt8], addresses: [String] = ["fd00::1/64"],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    var responder = try makeIPv6Responder(addresses)
    var answered = bytes
    #expect(answer(&responder, &answered) == .drop(reason), sourceLocation: sourceLocation)
    #expect(answered == bytes, "a dropped frame is left as it was", sourceLocation: sourceLocation)
    #expect(responder.statistics.dropped(reason) == 1, sourceLocation: sourceLocation)
    #expect(responder.statistics.frames == 1, sourceLocation: sourceLocation)
  }

  private let broadcast = [UInt8](repeating: 0xFF, count: 6)

  @Test("A frame shorter than its headers")
  func truncated() throws {
    for length in 14..<54 { try expectDrop(.truncated, Array(IPv6Frame.udp().bytes.prefix(length))) }
  }

  @Test("A frame for another station, a group's included whose members we cannot tell by the frame alone")
  func otherStation() throws {
    try expectDrop(.otherStation, IPv6Frame.udp { $0.destinationMAC = [0x02, 0, 0, 0, 0, 0x09] }.bytes)
    try expectDrop(.ipGroupDestination, IPv6Frame.solicitation(target: There.ipv6Bytes).bytes)
  }

  @Test("RFC 8200 §3: another version, and a payload beyond the frame")
  func header() throws {
    try expectDrop(.ipVersion, IPv6Frame.udp { $0.version = 4 }.bytes)
    try expectDrop(.ipTotalLength, IPv6Frame.udp { $0.payloadLength = 14 }.bytes)
    var responder = try makeIPv6Responder()
    var bytes = IPv6Frame.udp().bytes
    #expect(answer(&responder, &bytes, length: 66) == .drop(.ipTotalLength), "the buffer's bytes are not the frame's")
  }

  @Test("RFC 8200 §4: fragments, routes, options and headers that stop a packet")
  func extensions() throws {
    let cases: [(DropReason, UInt8, [UInt8])] = [
      (.ipFragment, 44, [0, 0, 0, 1, 0, 0, 0, 1]), (.ipFragment, 44, [0, 0, 0, 8, 0, 0, 0, 1]),
      (.ipSourceRoute, 43, [0, 0, 0, 1, 0, 0, 0, 0]), (.ipOptions, 60, [0, 0, 1, 5, 0, 0, 0, 0]),
      (.ipUnknownOption, 0, [0, 0, 0xC2, 4, 0, 1, 0, 0]), (.ipExtensionHeader, 60, [0, 9, 1, 4, 0, 0, 0, 0]),
    ]
    for (reason, number, bytes) in cases {
      try expectDrop(reason, IPv6Frame.udp { $0.extensions = [(number, bytes)] }.bytes)
      try expectDrop(reason, IPv6Frame.icmp { $0.extensions = [(number, bytes)] }.bytes)
    }
  }

  @Test(
    "RFC 4291 §2.5, §2.7: sources that no other host can have",
    arguments: [
      IPv6Bytes.unspecified, IPv6Bytes.loopback, IPv6Bytes.mapped, IPv6Bytes.allNodes, Here.ipv6Bytes,
      Here.linkLocalBytes, [0xFD, 1] + [UInt8](repeating: 0, count: 13) + [7],
    ])
  func source(_ source: [UInt8]) throws {
    let frames: [IPv6Frame] = [
      .udp { $0.source = source }, .icmp { $0.source = source }, .icmp(kind: 129) { $0.source = source },
      IPv6Frame(source: source, proto: 6),
      .icmp { ($0.source, $0.destination) = (source, IPv6Bytes.allNodes) },
    ]
    for frame in frames {
      try expectDrop(.ipInvalidSource, frame.bytes, addresses: ["fd00::1/64", "fd00:9::1/64", "fd01::7/64"])
    }
    if source != IPv6Bytes.unspecified {
      try expectDrop(
        .ipInvalidSource, IPv6Frame.solicitation { $0.source = source }.bytes, addresses: ["fd00::1/64", "fd01::7/64"])
    }
  }

  @Test("A packet to another host")
  func otherAddress() throws {
    for destination in [There.ipv6Bytes, IPv6Bytes.loopback, IPv6Bytes.unspecified, There.linkLocalBytes] {
      try expectDrop(.ipOtherAddress, IPv6Frame.udp { $0.destination = destination }.bytes)
      try expectDrop(.ipOtherAddress, IPv6Frame.icmp { $0.destination = destination }.bytes)
    }
  }

  @Test("A packet to a group that we are not in, and a datagram to one that we are in: its echo would be multiplied")
  func groups() throws {
    for group in [
      IPv6Bytes.allRouters, IPv6Bytes.solicitedNode(There.ipv6Bytes), [0xFF, 1] + Here.ipv6Bytes.dropFirst(2),
    ] {
      for mac in [Here.macBytes, IPv6Bytes.multicastMAC(group)] {
        try expectDrop(.ipGroupDestination, IPv6Frame.icmp { ($0.destination, $0.destinationMAC) = (group, mac) }.bytes)
      }
    }
    for group in [IPv6Bytes.allNodes, IPv6Bytes.solicitedNode(Here.ipv6Bytes)] {
      try expectDrop(.ipGroupDestination, IPv6Frame.udp { $0.destination = group }.bytes)
    }
  }

  @Test("A packet to us alone in a frame to a group")
  func groupFrame() throws {
    for mac in [broadcast, [0x33, 0x33, 0, 0, 0, 1]] {
      try expectDrop(.ipGroupFrame, IPv6Frame.udp { $0.destinationMAC = mac }.bytes)
      try expectDrop(.ipGroupFrame, IPv6Frame.icmp { $0.destinationMAC = mac }.bytes)
    }
  }

  @Test("RFC 4443: ICMP too short, with a wrong checksum, or an echo request with a code")
  func icmp() throws {
    try expectDrop(.icmpLength, IPv6Frame(proto: 58, payload: [128, 0, 0, 0, 0, 0, 0]).bytes)
    try expectDrop(.icmpLength, IPv6Frame(proto: 58).bytes)
    try expectDrop(.icmpChecksum, IPv6Frame.icmp(checksumError: 1).bytes)
    try expectDrop(.icmpCode, IPv6Frame.icmp(code: 1).bytes)
  }

  @Test("RFC 4861 §7.1: neighbor messages that break a rule")
  func neighbors() throws {
    let cases: [(DropReason, IPv6Frame)] = [
      (.neighborHopLimit, .solicitation { $0.hopLimit = 254 }), (.neighborHopLimit, .advertisement { $0.hopLimit = 0 }),
      (.icmpCode, .solicitation(code: 1)), (.icmpLength, .icmp(kind: 135, []) { $0.hopLimit = 255 }),
      (.neighborFragment, .solicitation { $0.extensions = [(44, [0, 0, 0, 0, 0, 0, 0, 1])] }),
      (.neighborTarget, .solicitation(target: IPv6Bytes.allNodes) { $0.destination = Here.ipv6Bytes }),
      (.neighborOptions, .solicitation(options: [1, 0] + There.macBytes)),
      (.neighborSource, .probe { $0.destination = Here.ipv6Bytes }),
      (.neighborSource, .probe { $0.destination = IPv6Bytes.allNodes }),
      (.neighborSource, .probe(options: [1, 1] + There.macBytes)),
      (.neighborFlags, .advertisement { $0.destination = IPv6Bytes.allNodes }),
    ]
    for (index, (reason, frame)) in cases.enumerated() {
      var responder = try makeIPv6Responder()
      var bytes = frame.bytes
      #expect(answer(&responder, &bytes) == .drop(reason), "case \(index)")
      #expect(bytes == frame.bytes)
    }
  }

  @Test("A solicitation of an address that is not ours, even if it shares our group")
  func otherTarget() throws {
    var other = Here.ipv6Bytes
    other[12] = 9
    try expectDrop(.neighborOtherTarget, IPv6Frame.solicitation(target: other).bytes)
    try expectDrop(.neighborOtherTarget, IPv6Frame.probe(target: other).bytes)
    for target in [IPv6Bytes.unspecified, IPv6Bytes.loopback, There.ipv6Bytes] {
      try expectDrop(
        .neighborOtherTarget, IPv6Frame.solicitation(target: target) { $0.destination = Here.ipv6Bytes }.bytes)
    }
  }

  @Test("A solicitation from an Ethernet address that nobody can be answered at")
  func hardwareAddress() throws {
    for mac in [broadcast, [0x33, 0x33, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0], Here.macBytes] {
      try expectDrop(.neighborHardwareAddress, IPv6Frame.solicitation(options: [1, 1] + mac).bytes)
    }
  }

  @Test("RFC 4862 §5.4.4: somebody advertises an address of ours")
  func conflict() throws {
    for target in [Here.ipv6Bytes, Here.linkLocalBytes] {
      try expectDrop(.neighborConflict, IPv6Frame.advertisement(target: target).bytes)
      try expectDrop(
        .neighborConflict,
        IPv6Frame.advertisement(target: target, flags: 0) { $0.destination = IPv6Bytes.allNodes }.bytes)
    }
  }

  @Test("A solicitation in a buffer without room for the advertisement's eight more bytes")
  func noRoom() throws {
    try expectDrop(.noRoom, IPv6Frame.solicitation(options: []).bytes)
    try expectDrop(.noRoom, IPv6Frame.probe { $0.padding = [UInt8](repeating: 0, count: 7) }.bytes)
    var responder = try makeIPv6Responder()
    var bytes = IPv6Frame.probe { $0.padding = [UInt8](repeating: 0, count: 8) }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 86))
  }

  @Test("RFC 768: an impossible UDP length, ports zero, a service that answers everything")
  func udp() throws {
    try expectDrop(.udpLength, IPv6Frame.udp(length: 7).bytes)
    try expectDrop(.udpLength, IPv6Frame.udp(length: 14).bytes)
    try expectDrop(.udpLength, IPv6Frame(payload: [0x13, 0x88, 0, 7, 0, 8, 0]).bytes)
    try expectDrop(.udpPortZero, IPv6Frame.udp(to: 0).bytes)
    try expectDrop(.udpPortZero, IPv6Frame.udp(from: 0).bytes)
    try expectDrop(.udpAnsweringService, IPv6Frame.udp(from: 7).bytes)
  }

  @Test("RFC 8200 §8.1: a wrong UDP checksum, and none at all, also where nobody would be answered")
  func udpChecksum() throws {
    try expectDrop(.udpChecksum, IPv6Frame.udp(checksumError: 1).bytes)
    try expectDrop(.udpNoChecksum, IPv6Frame.udp(checksum: 0).bytes)
    var responder = try makeIPv6Responder(udpEcho: .none)
    var bytes = IPv6Frame.udp(checksum: 0).bytes
    #expect(answer(&responder, &bytes) == .drop(.udpNoChecksum))
  }
}
