import NetdevTesting
import PacketFormats
import ReferenceFrames
import Responder
import Testing

@Suite("Responder: what is answered")
struct ResponderAnswerTests {
  @Test("RFC 862, RFC 768: a datagram comes back with addresses and ports exchanged (bytes worked out by hand)")
  func udp() throws {
    var responder = try makeResponder()
    var bytes = hex(
      """
      02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00 00 21 12 34 00 00 40 11 54 96 0a 00 00 02 0a 00 00 01
      13 88 00 07 00 0d 94 70 68 65 6c 6c 6f
      """)
    #expect(answer(&responder, &bytes) == .reply(length: 47))
    #expect(
      bytes
        == hex(
          """
          02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 00 00 21 00 00 40 00 40 11 26 ca 0a 00 00 01 0a 00 00 02
          00 07 13 88 00 0d 94 70 68 65 6c 6c 6f
          """))
    #expect(responder.statistics.udpEchoReplies == 1 && responder.statistics.frames == 1)
  }

  @Test("RFC 792, RFC 1122 §3.2.2.6: an echo request comes back as a reply (bytes worked out by hand)")
  func icmp() throws {
    var responder = try makeResponder()
    var bytes = hex(
      """
      02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 b9 00 23 00 77 00 00 01 01 a4 a8 0a 00 00 02 0a 00 00 01
      08 00 a7 e1 be ef 00 01 61 62 63 64 65 66 67
      """)
    #expect(answer(&responder, &bytes) == .reply(length: 49))
    // The code point of the request comes back (RFC 1349 §5.1), its ECN bits do not (RFC 3168 §6.1): b9 becomes b8.
    #expect(
      bytes
        == hex(
          """
          02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 b8 00 23 00 00 40 00 40 01 26 20 0a 00 00 01 0a 00 00 02
          00 00 af e1 be ef 00 01 61 62 63 64 65 66 67
          """))
    #expect(responder.statistics.icmpEchoReplies == 1 && responder.statistics.frames == 1)
  }

  @Test("RFC 826: a broadcast request is answered to its sender alone, padding cut")
  func arp() throws {
    var responder = try makeResponder()
    var bytes = ARPFrame().bytes
    #expect(answer(&responder, &bytes) == .reply(length: 42))
    let reply = ARPFrame(
      destinationMAC: There.macBytes, sourceMAC: Here.macBytes, operation: 2, senderMAC: Here.macBytes,
      senderIP: Here.ipBytes, targetMAC: There.macBytes, targetIP: There.ipBytes, padding: [])
    #expect(Array(bytes.prefix(42)) == reply.bytes)
    #expect(responder.statistics.arpReplies == 1 && responder.statistics.frames == 1)
  }

  @Test("RFC 1122 §2.3.2.1: a unicast poll is answered too")
  func arpPoll() throws {
    var responder = try makeResponder()
    var bytes = ARPFrame(destinationMAC: Here.macBytes).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 42))
  }

  @Test("RFC 791 §3.1: Ethernet padding is cut, the length follows from the total length")
  func padding() throws {
    var responder = try makeResponder()
    var bytes = IPv4Frame.udp { $0.padding = [UInt8](repeating: 0xAA, count: 13) }.bytes
    #expect(bytes.count == 60)
    #expect(answer(&responder, &bytes) == .reply(length: 47))
    bytes = IPv4Frame.icmp { $0.padding = [UInt8](repeating: 0xAA, count: 11) }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 49))
  }

  @Test("RFC 768: what follows the datagram within its packet is not echoed, and the total length is the datagram's")
  func surplus() throws {
    var responder = try makeResponder()
    var bytes = IPv4Frame.udp(surplus: [1, 2, 3]).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 47))
    #expect(number(bytes[16..<18]) == 33 && referenceChecksum(bytes[14..<34]) == 0)
  }

  @Test("RFC 1122 §4.1.3.4: a datagram without a checksum is echoed with one")
  func checksumAdded() throws {
    var responder = try makeResponder()
    var bytes = IPv4Frame.udp(checksum: 0).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 47))
    #expect(number(bytes[40..<42]) == 0x9470)
  }

  @Test("RFC 768: a checksum that comes out as zero is sent as all ones")
  func checksumOfZero() throws {
    var responder = try makeResponder()
    var bytes = IPv4Frame.udp([0xD8, 0x48], checksum: 0).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 44))
    #expect(number(bytes[40..<42]) == 0xFFFF)
    bytes = IPv4Frame.udp([0xD8, 0x48], checksum: 0xFFFF).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 44))
    #expect(number(bytes[40..<42]) == 0xFFFF)
  }

  @Test("RFC 791 §3.1: options other than a source route are accepted and not echoed; the payload moves forward")
  func options() throws {
    var responder = try makeResponder()
    let options: [UInt8] = [7, 39, 4] + [UInt8](repeating: 0, count: 36) + [0]
    for count in [4, 40] {
      let taken = count == 4 ? [148, 4, 0, 0] : options
      var bytes = IPv4Frame.udp { $0.options = taken }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 47))
      let plain = IPv4Frame.udp(from: 7, to: 5000) {
        ($0.source, $0.destination) = (Here.ipBytes, There.ipBytes)
        ($0.sourceMAC, $0.destinationMAC) = (Here.macBytes, There.macBytes)
        ($0.identification, $0.fragmentField, $0.timeToLive) = (0, 0x4000, 64)
      }
      #expect(Array(bytes.prefix(47)) == plain.bytes)
      bytes = IPv4Frame.icmp { $0.options = taken }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 49))
      #expect(referenceChecksum(bytes[14..<34]) == 0 && referenceChecksum(bytes[34..<49]) == 0)
      #expect(Array(bytes[42..<49]) == Array("abcdefg".utf8))
    }
  }

  @Test("RFC 1122 §3.2.1.7: the time to live received does not matter, the one sent is fresh")
  func timeToLive() throws {
    var responder = try Responder(
      macAddress: Here.mac, addresses: [try #require(IPv4Network("10.0.0.1/24"))], timeToLive: 200)
    for received in [0, 1, 255] as [UInt8] {
      var bytes = IPv4Frame.udp { $0.timeToLive = received }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 47))
      #expect(bytes[22] == 200 && referenceChecksum(bytes[14..<34]) == 0)
    }
  }

  @Test("All addresses are answered for, each as itself")
  func severalAddresses() throws {
    var responder = try makeResponder(addresses: ["10.0.0.1/24", "192.168.5.9/16", "172.16.0.1/32"])
    for address in [[10, 0, 0, 1], [192, 168, 5, 9], [172, 16, 0, 1]] as [[UInt8]] {
      var bytes = IPv4Frame.icmp { $0.destination = address }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 49))
      #expect(Array(bytes[26..<30]) == address)
      bytes = ARPFrame(targetIP: address).bytes
      #expect(answer(&responder, &bytes) == .reply(length: 42))
      #expect(Array(bytes[28..<32]) == address)
    }
  }

  @Test("Bytes of the buffer behind the frame are neither read nor written")
  func beyondTheFrame() throws {
    var responder = try makeResponder()
    for frame in [IPv4Frame.udp().bytes, IPv4Frame.icmp().bytes, ARPFrame().bytes] {
      var bytes = frame + [UInt8](repeating: 0x55, count: 100)
      guard case .reply(let length) = answer(&responder, &bytes, length: frame.count) else {
        Issue.record("not answered")
        continue
      }
      #expect(length <= frame.count)
      #expect(bytes[frame.count...] == [UInt8](repeating: 0x55, count: 100)[...])
    }
  }

  @Test("The longest datagrams are echoed as well")
  func longest() throws {
    var responder = try makeResponder()
    var random = SeededRandom(seed: 65507)
    let data = random.bytes(65507)
    for checksum in [nil, 0] as [UInt16?] {
      var bytes = IPv4Frame.udp(data, checksum: checksum).bytes
      #expect(answer(&responder, &bytes) == .reply(length: 65549))
      #expect(Array(bytes[42...]) == data)
      let pseudoHeader = Array(bytes[26..<34]) + [0, 17] + bytes[38..<40]
      #expect(referenceChecksum(pseudoHeader + bytes[34...]) == 0)
    }
  }
}

@Suite("Responder: what is delivered")
struct ResponderDeliveryTests {
  private func expectDelivered(_ bytes: [UInt8], udpEcho: UDPEchoPorts = .all) throws {
    var responder = try makeResponder(udpEcho: udpEcho)
    var answered = bytes
    #expect(answer(&responder, &answered) == .deliver)
    #expect(answered == bytes)
    #expect(responder.statistics.delivered == 1 && responder.statistics.frames == 1)
  }

  @Test("Datagrams to ports that are not echo ports")
  func ports() throws {
    try expectDelivered(IPv4Frame.udp(to: 9).bytes, udpEcho: .ports([7, 8, 71]))
    try expectDelivered(IPv4Frame.udp(to: 7).bytes, udpEcho: .none)
    try expectDelivered(IPv4Frame.udp(from: 0, to: 9).bytes, udpEcho: .none)
  }

  @Test("Other protocols and ICMP messages that are no echo request, checked as far as they are known")
  func protocols() throws {
    try expectDelivered(IPv4Frame.icmp(kind: 0).bytes)
    try expectDelivered(IPv4Frame.icmp(kind: 3, code: 1).bytes)
    try expectDelivered(IPv4Frame(proto: 6, payload: [1, 2, 3]).bytes)
  }

  @Test("Other EtherTypes, and frames of IEEE 802.3")
  func etherTypes() throws {
    for type in [[0x88, 0x47], [0x88, 0xCC], [0x00, 0x26]] as [[UInt8]] {
      try expectDelivered(IPv4Frame.udp { $0.etherType = type }.bytes)
    }
    try expectDelivered(Here.macBytes + There.macBytes + [0x88, 0x47])
    try expectDelivered([0x01, 0x80, 0xC2, 0, 0, 0] + There.macBytes + [0x00, 0x26])
  }

  @Test("RFC 826: replies for our address")
  func arpReply() throws {
    try expectDelivered(ARPFrame(destinationMAC: Here.macBytes, operation: 2, targetMAC: Here.macBytes).bytes)
  }
}

@Suite("Responder: configuration and counts")
struct ResponderConfigurationTests {
  @Test("Echo ports are a set: those in it and no others, port 0 never")
  func echoPorts() {
    let ports = UDPEchoPorts.ports([0, 7, 63, 64, 65535])
    for port in UInt16.min...UInt16.max {
      #expect(ports.contains(port) == [7, 63, 64, 65535].contains(port))
    }
    #expect(UDPEchoPorts.all.contains(1) && UDPEchoPorts.all.contains(65535) && !UDPEchoPorts.all.contains(0))
    #expect(!UDPEchoPorts.none.contains(7))
  }

  @Test("A station needs an address of its own, and a host at least one that a host can have")
  func refused() throws {
    let network = try #require(IPv4Network("10.0.0.1/24"))
    for mac in [MACAddress.broadcast, .zero, MACAddress(1, 0, 0, 0, 0, 0)] {
      #expect(throws: ResponderConfigurationError.stationAddress(mac)) {
        try Responder(macAddress: mac, addresses: [network])
      }
    }
    #expect(throws: ResponderConfigurationError.noAddress) { try Responder(macAddress: Here.mac, addresses: []) }
    for text in ["127.0.0.1/8", "224.0.0.1/4", "0.0.0.0/0", "255.255.255.255/32", "10.0.0.255/24", "10.0.0.0/24"] {
      let wrong = try #require(IPv4Network(text))
      #expect(throws: ResponderConfigurationError.hostAddress(wrong)) {
        try Responder(macAddress: Here.mac, addresses: [network, wrong])
      }
    }
    #expect(ResponderConfigurationError.hostAddress(network).description.contains("10.0.0.1/24"))
  }

  @Test("RFC 3021: both addresses of a /31 are hosts")
  func pointToPoint() throws {
    var responder = try makeResponder(addresses: ["10.0.0.0/31"])
    var bytes = IPv4Frame.icmp { ($0.source, $0.destination) = ([10, 0, 0, 1], [10, 0, 0, 0]) }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 49))
  }

  @Test("Every reason has a row of its own in the table")
  func rows() {
    #expect(DropReason.allCases.count <= 64)
    #expect(DropReason.allCases.enumerated().allSatisfy { $0.offset == Int($0.element.rawValue) })
  }

  @Test("Counts of queues add up")
  func addition() throws {
    var first = try makeResponder()
    var second = first
    var bytes = IPv4Frame.udp().bytes
    _ = answer(&first, &bytes)
    bytes = IPv4Frame.udp { $0.version = 5 }.bytes
    _ = answer(&first, &bytes)
    _ = answer(&second, &bytes)
    bytes = IPv4Frame.icmp().bytes
    _ = answer(&second, &bytes)
    bytes = ARPFrame().bytes
    _ = answer(&second, &bytes)
    bytes = IPv6Frame.solicitation(target: Here.linkLocalBytes).bytes
    _ = answer(&second, &bytes)
    bytes = IPv4Frame(proto: 6).bytes
    _ = answer(&second, &bytes)
    var total = first.statistics
    total += second.statistics
    #expect(total.udpEchoReplies == 1 && total.icmpEchoReplies == 1 && total.arpReplies == 1 && total.delivered == 1)
    #expect(total.neighborReplies == 1)
    #expect(total.dropped(.ipVersion) == 2 && total.dropped == 2 && total.frames == 7)
    #expect(
      total.description
        == "arp 1, neighbor 1, icmp echo 1, udp echo 1, delivered 1, dropped 2, ipVersion 2")
  }
}
