import NetdevTesting
import PacketFormats
import ReferenceFrames
import Responder
import Testing

/// Questions and answers as Linux 6.18 sent them over a veth pair, captured with a packet socket: what is answered there is
/// answered here with the same bytes, except where the comment says why not.
@Suite("Responder: what is answered over IPv6, as Linux does")
struct IPv6ResponderLinuxTests {
  private func exchange(_ question: String, _ answer: String) throws {
    var responder = try makeIPv6Responder()
    var bytes = hex(question)
    let expected = hex(answer)
    #expect(ResponderTests.answer(&responder, &bytes) == .reply(length: expected.count))
    #expect(Array(bytes.prefix(expected.count)) == expected)
    #expect(responder.statistics.replies == 1 && responder.statistics.frames == 1)
  }

  @Test("RFC 4861 §7.2.4: a solicitation to the group of our address is answered to its sender")
  func solicitation() throws {
    try exchange(
      """
      33 33 ff 00 00 01 02 00 00 00 00 02 86 dd 60 00 00 00 00 20 3a ff fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02
      ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 01 87 00 7d 97 00 00 00 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00
      00 01 01 01 02 00 00 00 00 02
      """,
      """
      02 00 00 00 00 02 02 00 00 00 00 01 86 dd 60 00 00 00 00 20 3a ff fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01
      fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02 88 00 1c 9c 60 00 00 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00
      00 01 02 01 02 00 00 00 00 01
      """)
  }

  @Test("RFC 4862 §5.4.3: a host that is about to take our address is told, together with all nodes")
  func duplicate() throws {
    try exchange(
      """
      33 33 ff 00 00 01 02 00 00 00 00 02 86 dd 60 00 00 00 00 20 3a ff 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
      ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 01 87 00 3a 5c 00 00 00 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00
      00 01 0e 01 21 6c 7d a6 96 2d
      """,
      """
      33 33 00 00 00 01 02 00 00 00 00 01 86 dd 60 00 00 00 00 20 3a ff fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01
      ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01 88 00 5a 9b 20 00 00 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00
      00 01 02 01 02 00 00 00 00 01
      """)
  }

  @Test("RFC 4443 §4.2: an echo request (here without Linux's flow label, and without its ECN bits, RFC 3168 §6.1)")
  func echo() throws {
    try exchange(
      """
      02 00 00 00 00 01 02 00 00 00 00 02 86 dd 6b 92 75 a2 00 17 3a 40 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02
      fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 80 00 1d cd 2f aa 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d
      0e
      """,
      """
      02 00 00 00 00 02 02 00 00 00 00 01 86 dd 6b 80 00 00 00 17 3a 40 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01
      fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02 81 00 1c cd 2f aa 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d
      0e
      """)
  }

  @Test("RFC 4443 §4.2: an echo request to all nodes, from our link-local address")
  func echoOfAllNodes() throws {
    try exchange(
      """
      33 33 00 00 00 01 02 00 00 00 00 02 86 dd 60 08 0e b7 00 17 3a 01 fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 02
      ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01 80 00 1b 21 2f d4 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d
      0e
      """,
      """
      02 00 00 00 00 02 02 00 00 00 00 01 86 dd 60 00 00 00 00 17 3a 40 fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 01
      fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 02 81 00 1b a3 2f d4 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d
      0e
      """)
  }

  @Test("RFC 862, RFC 768: a datagram comes back with addresses and ports exchanged")
  func udp() throws {
    try exchange(
      """
      02 00 00 00 00 01 02 00 00 00 00 02 86 dd 60 08 23 e8 00 0d 11 40 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02
      fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 13 88 00 07 00 0d ae 6e 68 65 6c 6c 6f
      """,
      """
      02 00 00 00 00 02 02 00 00 00 00 01 86 dd 60 00 00 00 00 0d 11 40 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01
      fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02 00 07 13 88 00 0d ae 6e 68 65 6c 6c 6f
      """)
  }
}

@Suite("Responder: what is answered over IPv6")
struct IPv6ResponderAnswerTests {
  @Test("The frames of these tests are Linux's where Linux sent the same")
  func frames() {
    let udp = IPv6Frame.udp { ($0.flowLabel, $0.hopLimit) = (0x823E8, 64) }
    #expect(Array(udp.bytes[54...]) == hex("13 88 00 07 00 0d ae 6e 68 65 6c 6c 6f"))
    #expect(Array(IPv6Frame.solicitation { $0.flowLabel = 0 }.bytes[54..<58]) == hex("87 00 7d 97"))
  }

  @Test("RFC 4861 §7.2.4: without the option that names the sender, the answer goes to where the frame came from")
  func withoutOption() throws {
    var responder = try makeIPv6Responder()
    var bytes = IPv6Frame.solicitation(options: []).bytes
    #expect(bytes.count == 78)
    bytes += [UInt8](repeating: 0xEE, count: 9)
    #expect(answer(&responder, &bytes, length: 78) == .reply(length: 86))
    #expect(bytes == IPv6Frame.answer(for: Here.ipv6Bytes, to: There.ipv6Bytes) + [0xEE])
    #expect(responder.statistics.neighborReplies == 1)
  }

  @Test("RFC 4861 §7.2.3: with it, to the station that it names")
  func withOption() throws {
    var responder = try makeIPv6Responder()
    let other: [UInt8] = [2, 9, 9, 9, 9, 9]
    var bytes = IPv6Frame.solicitation(options: [1, 1] + other).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 86))
    #expect(bytes == IPv6Frame.answer(for: Here.ipv6Bytes, to: There.ipv6Bytes, mac: other))
  }

  @Test("RFC 4861 §7.3.3: a unicast poll is answered too, and one to all nodes")
  func poll() throws {
    for destination in [Here.ipv6Bytes, Here.linkLocalBytes, IPv6Bytes.allNodes] {
      var responder = try makeIPv6Responder()
      var bytes = IPv6Frame.solicitation { $0.destination = destination }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 86))
      #expect(bytes == IPv6Frame.answer(for: Here.ipv6Bytes, to: There.ipv6Bytes))
    }
  }

  @Test("All addresses are answered for, each as itself, the link-local one of the MAC address too")
  func severalAddresses() throws {
    let texts = ["fd00::1/64", "2001:db8::7:1/48", "fd00:1::aa:bb/128"]
    var responder = try makeIPv6Responder(texts)
    #expect(responder.ipv6Addresses.map(\.description) == texts + ["fe80::ff:fe00:1/64"])
    let all: [[UInt8]] = [
      Here.ipv6Bytes, hex("20010db8 00000000 00000000 00070001"), hex("fd000001 00000000 00000000 00aa00bb"),
      Here.linkLocalBytes,
    ]
    for address in all {
      var bytes = IPv6Frame.icmp { $0.destination = address }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 69))
      #expect(Array(bytes[22..<38]) == address && Array(bytes[38..<54]) == There.ipv6Bytes)
      #expect(IPv6Frame.checksum(address, There.ipv6Bytes, 58, Array(bytes[54..<69])) == 0)
      bytes = IPv6Frame.solicitation(target: address).bytes
      #expect(answer(&responder, &bytes) == .reply(length: 86))
      #expect(bytes == IPv6Frame.answer(for: address, to: There.ipv6Bytes))
      bytes = IPv6Frame.udp { $0.destination = address }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 67))
      #expect(IPv6Frame.checksum(address, There.ipv6Bytes, 17, Array(bytes[54..<67])) == 0)
    }
  }

  @Test("RFC 4291 §2.8: a link-local address that is given takes the place of the MAC address's")
  func givenLinkLocal() throws {
    var responder = try makeIPv6Responder(["fd00::1/64", "fe80::5/64"])
    #expect(responder.ipv6Addresses.map(\.description) == ["fd00::1/64", "fe80::5/64"])
    var bytes = IPv6Frame.icmp { $0.destination = hex("fe800000 00000000 00000000 00000005") }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 69))
    bytes = IPv6Frame.icmp { $0.destination = Here.linkLocalBytes }.bytes
    #expect(answer(&responder, &bytes) == .drop(.ipOtherAddress))
  }

  @Test("A responder with IPv4 addresses is reached on the link over IPv6, one told not to be is not")
  func besideIPv4() throws {
    let network = try #require(IPv4Network("10.0.0.1/24"))
    var responder = try Responder(macAddress: Here.mac, addresses: [network])
    var bytes = IPv6Frame.icmp { $0.destination = Here.linkLocalBytes }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 69))
    bytes = IPv4Frame.icmp().bytes
    #expect(answer(&responder, &bytes) == .reply(length: 49))
    responder = try Responder(macAddress: Here.mac, addresses: [network], ipv6Addresses: nil)
    #expect(responder.ipv6Addresses.isEmpty)
    bytes = IPv6Frame.icmp { $0.destination = Here.linkLocalBytes }.bytes
    #expect(answer(&responder, &bytes) == .deliver)
    bytes = IPv4Frame.icmp().bytes
    #expect(answer(&responder, &bytes) == .reply(length: 49))
  }

  @Test("RFC 6724 §5: to a group, the source of the answer is the address of the asker's network, or one of its scope")
  func sourceSelection() throws {
    var responder = try makeIPv6Responder(["fd00:1::1/64", "fd00:2::1/64", "fe80::5/128"])
    let cases = [
      ("fe80::2", "fe80::5"), ("fd00:1::2", "fd00:1::1"), ("fd00:2::2", "fd00:2::1"), ("2001:db8::2", "fd00:1::1"),
    ]
    for (asker, source) in cases {
      let askerAddress = try #require(IPv6Address(asker))
      let askerBytes = bigEndian(askerAddress.high, 8) + bigEndian(askerAddress.low, 8)
      // The other group that we are in, by fd00:1::1 and fd00:2::1 both.
      for group in [IPv6Bytes.allNodes, IPv6Bytes.solicitedNode([0, 0, 1])] {
        var bytes = IPv6Frame.icmp {
          ($0.source, $0.destination, $0.destinationMAC) = (askerBytes, group, IPv6Bytes.multicastMAC(group))
        }.bytes
        #expect(answer(&responder, &bytes) == .reply(length: 69))
        #expect(IPv6Address(decoding: bytes.raw, at: 22)?.description == source, "to \(asker)")
        #expect(IPv6Frame.checksum(Array(bytes[22..<38]), askerBytes, 58, Array(bytes[54..<69])) == 0)
      }
    }
    // With a link-local address alone there is no other; with it in the front, the other is found.
    responder = try makeIPv6Responder(["fe80::5/64"])
    var bytes = IPv6Frame.icmp { $0.destination = IPv6Bytes.allNodes }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 69))
    #expect(IPv6Address(decoding: bytes.raw, at: 22)?.description == "fe80::5")
    responder = try makeIPv6Responder(["fe80::5/64", "fd00:7::1/64"])
    bytes = IPv6Frame.icmp { $0.destination = IPv6Bytes.allNodes }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 69))
    #expect(IPv6Address(decoding: bytes.raw, at: 22)?.description == "fd00:7::1")
  }

  @Test("RFC 6085: a packet to a group in a frame to us alone is as good")
  func groupInUnicastFrame() throws {
    var responder = try makeIPv6Responder()
    var bytes = IPv6Frame.icmp { $0.destination = IPv6Bytes.allNodes }.bytes
    #expect(Array(bytes[0..<6]) == Here.macBytes)
    #expect(answer(&responder, &bytes) == .reply(length: 69))
  }

  @Test("RFC 8200 §4: extension headers are skipped and not echoed; the payload moves forward")
  func extensions() throws {
    var responder = try makeIPv6Responder()
    let padding: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]
    let chains: [[(UInt8, [UInt8])]] = [
      [(0, padding)], [(0, padding), (60, padding), (43, [0, 0, 0, 0, 0, 0, 0, 0]), (44, [0, 0, 0, 0, 0, 0, 0, 1])],
    ]
    for chain in chains {
      let extensions = chain.map { (number: $0.0, bytes: $0.1) }
      var bytes = IPv6Frame.udp { $0.extensions = extensions }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 67))
      let plain = IPv6Frame.udp(from: 7, to: 5000) {
        ($0.source, $0.destination) = (Here.ipv6Bytes, There.ipv6Bytes)
        ($0.sourceMAC, $0.destinationMAC) = (Here.macBytes, There.macBytes)
        ($0.flowLabel, $0.hopLimit) = (0, 64)
      }
      #expect(Array(bytes.prefix(67)) == plain.bytes)
      bytes = IPv6Frame.icmp { $0.extensions = extensions }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 69))
      #expect(number(bytes[18..<20]) == 15 && bytes[20] == 58 && bytes[54] == 129)
      #expect(IPv6Frame.checksum(Here.ipv6Bytes, There.ipv6Bytes, 58, Array(bytes[54..<69])) == 0)
    }
  }

  @Test("Ethernet padding is cut, and what follows a datagram within its packet")
  func lengths() throws {
    var responder = try makeIPv6Responder()
    var bytes = IPv6Frame.udp { $0.padding = [1, 2, 3] }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 67))
    bytes = IPv6Frame.udp(surplus: [1, 2, 3]).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 67))
    #expect(number(bytes[18..<20]) == 13)
    bytes = IPv6Frame.icmp { $0.padding = [1, 2, 3] }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 69))
    bytes = IPv6Frame.solicitation { $0.padding = [1, 2, 3] }.bytes
    #expect(answer(&responder, &bytes) == .reply(length: 86))
  }

  @Test("RFC 768: a checksum of all ones, which stands for zero, comes back as it is")
  func checksumOfZero() throws {
    var responder = try makeIPv6Responder()
    // Two bytes with which the sum over this datagram is all ones.
    let rest = IPv6Frame.checksum(There.ipv6Bytes, Here.ipv6Bytes, 17, hex("1388 0007 000a 0000 0000"))
    var bytes = IPv6Frame.udp(bigEndian(rest, 2)).bytes
    #expect(number(bytes[60..<62]) == 0xFFFF)
    #expect(answer(&responder, &bytes) == .reply(length: 64))
    #expect(number(bytes[60..<62]) == 0xFFFF)
  }

  @Test("The hop limit received does not matter to an echo, the one sent is fresh")
  func hopLimit() throws {
    var responder = try Responder(
      macAddress: Here.mac, ipv6Addresses: [try #require(IPv6Network("fd00::1/64"))], timeToLive: 200)
    for received in [0, 1, 255] as [UInt8] {
      var bytes = IPv6Frame.udp { $0.hopLimit = received }.bytes
      #expect(answer(&responder, &bytes) == .reply(length: 67))
      #expect(bytes[21] == 200)
    }
    var bytes = IPv6Frame.solicitation().bytes
    #expect(answer(&responder, &bytes) == .reply(length: 86))
    #expect(bytes[21] == 255)
  }

  @Test("The longest datagrams and echo requests are answered as well")
  func longest() throws {
    var responder = try makeIPv6Responder()
    var random = SeededRandom(seed: 65527)
    let data = random.bytes(65527)
    var bytes = IPv6Frame.udp(data).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 65589))
    #expect(Array(bytes[62...]) == data)
    #expect(IPv6Frame.checksum(Here.ipv6Bytes, There.ipv6Bytes, 17, Array(bytes[54...])) == 0)
    bytes = IPv6Frame.icmp(data).bytes
    #expect(answer(&responder, &bytes) == .reply(length: 65589))
    #expect(IPv6Frame.checksum(Here.ipv6Bytes, There.ipv6Bytes, 58, Array(bytes[54...])) == 0)
  }
}

@Suite("Responder: what is delivered over IPv6")
struct IPv6ResponderDeliveryTests {
  private func expectDelivered(_ frame: IPv6Frame, udpEcho: UDPEchoPorts = .all) throws {
    var responder = try makeIPv6Responder(udpEcho: udpEcho)
    var answered = frame.bytes
    #expect(answer(&responder, &answered) == .deliver)
    #expect(answered == frame.bytes)
    #expect(responder.statistics.delivered == 1 && responder.statistics.frames == 1)
  }

  @Test("Datagrams to ports that are not echo ports")
  func ports() throws {
    try expectDelivered(.udp(to: 9), udpEcho: .ports([7]))
    try expectDelivered(.udp(from: 0, to: 9), udpEcho: .none)
  }

  @Test("Other protocols, and ICMP messages that ask nothing of us, checked as far as they are known")
  func protocols() throws {
    for proto in [6, 50, 51, 59, 253] as [UInt8] { try expectDelivered(IPv6Frame(proto: proto, payload: [1, 2, 3])) }
    for kind in [1, 2, 3, 4, 129, 133, 134, 137, 143] as [UInt8] { try expectDelivered(.icmp(kind: kind, code: 1)) }
  }

  @Test("RFC 4861: advertisements of other addresses")
  func advertisements() throws {
    try expectDelivered(.advertisement())
    try expectDelivered(
      .advertisement(flags: 0x20) {
        ($0.destination, $0.destinationMAC) = (IPv6Bytes.allNodes, [0x33, 0x33, 0, 0, 0, 1])
      })
  }

  @Test("Without IPv4 addresses, IPv4 and ARP")
  func withoutIPv4() throws {
    var responder = try makeIPv6Responder()
    for frame in [IPv4Frame.udp().bytes, IPv4Frame.udp { $0.destination = [0, 0, 0, 0] }.bytes, ARPFrame().bytes] {
      var bytes = frame
      #expect(answer(&responder, &bytes) == .deliver)
      #expect(bytes == frame)
    }
  }
}

@Suite("Responder: configuration over IPv6")
struct IPv6ResponderConfigurationTests {
  @Test("A host needs an address, and none that no host can have")
  func refused() throws {
    for addresses in [nil, []] as [[IPv6Network]?] {
      #expect(throws: ResponderConfigurationError.noAddress) {
        try Responder(macAddress: Here.mac, ipv6Addresses: addresses)
      }
    }
    for text in ["::/0", "::1/128", "ff02::1/64", "::ffff:10.0.0.1/96"] {
      let wrong = try #require(IPv6Network(text))
      let error = ResponderConfigurationError.ipv6HostAddress(wrong)
      #expect(throws: error) { try Responder(macAddress: Here.mac, ipv6Addresses: [wrong]) }
      #expect(error.description.contains(wrong.description))
    }
  }
}
