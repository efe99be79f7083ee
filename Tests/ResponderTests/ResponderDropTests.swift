import PacketFormats
import ReferenceFrames
import Responder
import Testing

/// Each frame below is right in all respects but one, so that only the check under test can stop it.
@Suite("Responder: what is dropped, and why")
struct ResponderDropTests {
  private func expectDrop(
    _ reason: DropReason, _ bytes: [UInt8], addresses: [String] = ["10.0.0.1/24"],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    var responder = try makeResponder(addresses: addresses)
    var answered = bytes
    #expect(answer(&responder, &answered) == .drop(reason), sourceLocation: sourceLocation)
    #expect(answered == bytes, "a dropped frame is left as it was", sourceLocation: sourceLocation)
    #expect(responder.statistics.dropped(reason) == 1, sourceLocation: sourceLocation)
    #expect(responder.statistics.frames == 1, sourceLocation: sourceLocation)
  }

  private let broadcast = [UInt8](repeating: 0xFF, count: 6)

  @Test("A frame shorter than its headers")
  func truncated() throws {
    for length in 0..<14 { try expectDrop(.truncated, Array(IPv4Frame.udp().bytes.prefix(length))) }
    for length in 14..<34 { try expectDrop(.truncated, Array(IPv4Frame.udp().bytes.prefix(length))) }
    for length in 14..<42 { try expectDrop(.truncated, Array(ARPFrame().bytes.prefix(length))) }
  }

  @Test("A length that is not inside the buffer", arguments: [-1, 48, Int.max, Int.min])
  func lengthOutside(_ length: Int) throws {
    var responder = try makeResponder()
    var bytes = IPv4Frame.udp().bytes
    #expect(answer(&responder, &bytes, length: length) == .drop(.truncated))
    #expect(bytes == IPv4Frame.udp().bytes)
  }

  @Test("IEEE 802.1Q: a tagged frame, even where ARP or IPv4 would stand behind the tag")
  func vlan() throws {
    for tag in [[0x81, 0x00], [0x88, 0xA8], [0x91, 0x00]] as [[UInt8]] {
      try expectDrop(.vlanTagged, IPv4Frame.udp { $0.etherType = tag }.bytes)
    }
  }

  @Test("A frame for another station")
  func otherStation() throws {
    try expectDrop(.otherStation, IPv4Frame.udp { $0.destinationMAC = [0x02, 0, 0, 0, 0, 0x09] }.bytes)
    try expectDrop(.otherStation, ARPFrame(destinationMAC: [0x02, 0, 0, 0, 0, 0x09]).bytes)
  }

  @Test("A frame from a group, from nobody, or from ourselves")
  func sourceMAC() throws {
    for mac in [broadcast, [0x01, 0, 0x5E, 0, 0, 1], [0, 0, 0, 0, 0, 0], Here.macBytes] {
      try expectDrop(.invalidSourceMAC, IPv4Frame.udp { $0.sourceMAC = mac }.bytes)
    }
  }

  @Test("RFC 826, RFC 5227: ARP that is not a question to us")
  func arp() throws {
    try expectDrop(.arpAddressSpace, ARPFrame(protocolType: 0x86DD).bytes)
    try expectDrop(.arpUnknownOperation, ARPFrame(operation: 3).bytes)
    try expectDrop(.arpOtherAddress, ARPFrame(targetIP: [10, 0, 0, 9]).bytes)
    try expectDrop(.arpInvalidSender, ARPFrame(senderMAC: broadcast).bytes)
    try expectDrop(.arpConflict, ARPFrame(senderIP: Here.ipBytes).bytes)
  }

  @Test("RFC 1122 §3.2.1.1: another version")
  func version() throws {
    try expectDrop(.ipVersion, IPv4Frame.udp { $0.version = 6 }.bytes)
  }

  @Test("RFC 791 §3.1: an impossible header length")
  func headerLength() throws {
    try expectDrop(.ipHeaderLength, IPv4Frame.udp { $0.headerWords = 4 }.bytes)
    try expectDrop(.ipHeaderLength, IPv4Frame.udp { $0.headerWords = 15 }.bytes)
  }

  @Test("RFC 791 §3.1: a total length below the header or beyond the frame")
  func totalLength() throws {
    try expectDrop(.ipTotalLength, IPv4Frame.udp { $0.totalLength = 19 }.bytes)
    try expectDrop(.ipTotalLength, IPv4Frame.udp { $0.totalLength = 34 }.bytes)
  }

  @Test("RFC 791 §3.1: bytes of the buffer behind the frame do not count as received")
  func totalLengthWithinBuffer() throws {
    var responder = try makeResponder()
    var bytes = IPv4Frame.udp().bytes
    #expect(answer(&responder, &bytes, length: 46) == .drop(.ipTotalLength))
  }

  @Test("RFC 1122 §3.2.1.2: a wrong header checksum")
  func headerChecksum() throws {
    try expectDrop(.ipHeaderChecksum, IPv4Frame.udp { $0.checksumError = 0x0100 }.bytes)
    try expectDrop(.ipHeaderChecksum, IPv4Frame.icmp { $0.checksumError = 1 }.bytes)
  }

  @Test("RFC 791 §3.2: fragments, the first, a middle one and the last")
  func fragments() throws {
    for field in [0x2000, 0x2001, 0x0001, 0x1FFF] as [UInt16] {
      try expectDrop(.ipFragment, IPv4Frame.udp { $0.fragmentField = field }.bytes)
      try expectDrop(.ipFragment, IPv4Frame.icmp { $0.fragmentField = field }.bytes)
    }
  }

  @Test("RFC 7126 §4.3, §4.4: source routes; RFC 791 §3.1: malformed options")
  func options() throws {
    try expectDrop(.ipSourceRoute, IPv4Frame.icmp { $0.options = [131, 7, 4, 10, 0, 0, 9, 0] }.bytes)
    try expectDrop(.ipSourceRoute, IPv4Frame.icmp { $0.options = [1, 137, 3, 4] }.bytes)
    try expectDrop(.ipOptions, IPv4Frame.icmp { $0.options = [7, 1, 0, 0] }.bytes)
  }

  @Test(
    "RFC 1122 §3.2.1.3: sources that no other host can have",
    arguments: [
      [0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 251], [240, 0, 0, 1], [255, 255, 255, 255],
      [10, 0, 0, 255], [10, 0, 0, 0], [10, 0, 0, 1], [192, 168, 255, 255], [192, 168, 5, 9],
    ] as [[UInt8]])
  func source(_ source: [UInt8]) throws {
    for frame in [IPv4Frame.udp { $0.source = source }, .icmp { $0.source = source }] {
      try expectDrop(.ipInvalidSource, frame.bytes, addresses: ["10.0.0.1/24", "192.168.5.9/16"])
    }
  }

  @Test("A packet to another host")
  func otherAddress() throws {
    try expectDrop(.ipOtherAddress, IPv4Frame.udp { $0.destination = [10, 0, 0, 9] }.bytes)
    try expectDrop(.ipOtherAddress, IPv4Frame.icmp { $0.destination = [127, 0, 0, 1] }.bytes)
  }

  @Test(
    "RFC 1122 §3.2.2.6: echo requests and datagrams to broadcast and multicast addresses, in any frame",
    arguments: [[255, 255, 255, 255], [10, 0, 0, 255], [10, 0, 0, 0], [224, 0, 0, 1]] as [[UInt8]])
  func groupDestination(_ destination: [UInt8]) throws {
    for mac in [Here.macBytes, broadcast, [0x01, 0, 0x5E, 0, 0, 1]] {
      try expectDrop(
        .ipGroupDestination, IPv4Frame.icmp { ($0.destination, $0.destinationMAC) = (destination, mac) }.bytes)
      try expectDrop(
        .ipGroupDestination, IPv4Frame.udp { ($0.destination, $0.destinationMAC) = (destination, mac) }.bytes)
    }
  }

  @Test("RFC 1122 §3.3.6: a packet to us alone in a frame to a group")
  func groupFrame() throws {
    for mac in [broadcast, [0x01, 0, 0x5E, 0, 0, 1]] {
      try expectDrop(.ipGroupFrame, IPv4Frame.udp { $0.destinationMAC = mac }.bytes)
      try expectDrop(.ipGroupFrame, IPv4Frame.icmp { $0.destinationMAC = mac }.bytes)
    }
  }

  @Test("RFC 792: ICMP too short, with a wrong checksum, or an echo request with a code")
  func icmp() throws {
    try expectDrop(.icmpLength, IPv4Frame(proto: 1, payload: [8, 0, 0xF7, 0xFF, 0, 0, 0]).bytes)
    try expectDrop(.icmpChecksum, IPv4Frame.icmp(checksumError: 1).bytes)
    try expectDrop(.icmpCode, IPv4Frame.icmp(code: 1).bytes)
  }

  @Test("RFC 768: an impossible UDP length")
  func udpLength() throws {
    try expectDrop(.udpLength, IPv4Frame.udp(length: 7, checksum: 0).bytes)
    try expectDrop(.udpLength, IPv4Frame.udp(length: 14, checksum: 0).bytes)
    try expectDrop(.udpLength, IPv4Frame(payload: [0x13, 0x88, 0, 7, 0, 8, 0]).bytes)
  }

  @Test("RFC 1122 §4.1.3.4: a UDP checksum that is there and wrong, also where nobody would be answered")
  func udpChecksum() throws {
    try expectDrop(.udpChecksum, IPv4Frame.udp(checksumError: 1).bytes)
    var responder = try makeResponder(udpEcho: .none)
    var bytes = IPv4Frame.udp(checksumError: 1).bytes
    #expect(answer(&responder, &bytes) == .drop(.udpChecksum))
  }

  @Test("RFC 768: port 0, to or from")
  func portZero() throws {
    try expectDrop(.udpPortZero, IPv4Frame.udp(to: 0).bytes)
    try expectDrop(.udpPortZero, IPv4Frame.udp(from: 0).bytes)
  }

  @Test("CERT CA-1996-01: services that answer everything are not answered, their neighbours are")
  func answeringServices() throws {
    for port in [7, 13, 17, 19, 37] as [UInt16] {
      try expectDrop(.udpAnsweringService, IPv4Frame.udp(from: port).bytes)
      for neighbour in [port - 1, port + 1, port + 64] {
        var responder = try makeResponder()
        var bytes = IPv4Frame.udp(from: neighbour).bytes
        #expect(answer(&responder, &bytes) == .reply(length: 47))
      }
    }
  }
}
