import Netdev
import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("What a frame says of itself")
struct FrameSummaryTests {
  private func line(_ bytes: [UInt8]) -> String { FrameSummary(bytes.raw).description }

  private let stations = "02:00:00:00:00:02 > 02:00:00:00:00:01"

  @Test("UDP, ICMP and ARP, as tcpdump says them")
  func known() {
    #expect(
      line(IPv4Frame.udp().bytes) == "\(stations), IPv4, length 47: 10.0.0.2.5000 > 10.0.0.1.7: UDP, length 5")
    #expect(
      line(IPv4Frame.icmp().bytes)
        == "\(stations), IPv4, length 49: 10.0.0.2 > 10.0.0.1: ICMP echo request, id 48879, seq 1, length 15")
    #expect(
      line(ARPFrame().bytes)
        == "02:00:00:00:00:02 > ff:ff:ff:ff:ff:ff, ARP, length 60: request who-has 10.0.0.1 tell 10.0.0.2")
    #expect(
      line(IPv6Frame.solicitation().bytes).hasSuffix(
        "ICMP6, neighbor solicitation, who has \(Here.ipv6), length 32"))
  }

  @Test("Fragments, wrong lengths and other protocols are said, not believed")
  func odd() {
    #expect(
      line(IPv4Frame.udp { $0.fragmentField = 0x2000 }.bytes).hasSuffix(
        "UDP, length 5 (frag offset 0, flags [+])"))
    #expect(
      line(IPv4Frame.udp { $0.fragmentField = 2 }.bytes).hasSuffix(
        "10.0.0.2 > 10.0.0.1: UDP, length 13 (frag offset 16, flags [none])"))
    #expect(line(IPv4Frame.udp { $0.totalLength = 1000 }.bytes).contains("truncated-ip - 967 bytes missing!"))
    #expect(line(IPv4Frame.udp(length: 7).bytes).hasSuffix("UDP, bad length 7 > 13"))
    #expect(line(IPv4Frame.udp { $0.version = 5 }.bytes).hasSuffix("[version 5]"))
    #expect(line(IPv4Frame.udp { $0.headerWords = 3 }.bytes).contains("[header length 12"))
    #expect(line(IPv4Frame.udp { $0.proto = 47 }.bytes).hasSuffix("10.0.0.2 > 10.0.0.1: protocol 47, length 13"))
    #expect(line(IPv4Frame.udp { $0.etherType = [0x88, 0xCC] }.bytes) == "\(stations), 0x88cc, length 47")
    #expect(line(IPv4Frame.udp { $0.etherType = [0x00, 0x40] }.bytes) == "\(stations), 802.3, length 47")
    #expect(line([1, 2, 3]) == "[|ether], length 3")
    #expect(line([]) == "[|ether], length 0")
  }

  @Test("TCP: flags in tcpdump's order, numbers, window, length")
  func tcp() {
    var frame = IPv4Frame()
    frame.proto = 6
    frame.payload = [0x1F, 0x90, 0x00, 0x50, 0, 0, 0, 100, 0, 0, 0, 200, 0x50, 0x12, 0xFF, 0xFF, 0, 0, 0, 0, 1, 2]
    #expect(
      line(frame.bytes).hasSuffix(
        "10.0.0.2.8080 > 10.0.0.1.80: Flags [S.], seq 100, ack 200, win 65535, length 2"))
    frame.payload[12] = 0xF0
    #expect(line(frame.bytes).hasSuffix("bad header length 60"))
    frame.payload[13] = 0
    #expect(line(frame.bytes).contains("Flags [none], seq 100, win"))
  }

  @Test("Tags are said from the outside in")
  func tags() throws {
    let tagged = Array(IPv4Frame.udp().bytes[0..<12]) + [0x88, 0xA8, 0x00, 0x05, 0x81, 0x00, 0x70, 0x64]
    let bytes = tagged + IPv4Frame.udp().bytes[12...]
    #expect(
      line(bytes).hasPrefix("\(stations), 802.1ad vlan 5, p 0, vlan 100, p 3, DEI, IPv4, length 55: 10.0.0.2.5000 >"))
  }

  @Test("More tags than are followed are not said to be cut")
  func manyTags() {
    let front = Array(IPv4Frame.udp().bytes[0..<12])
    let tags: [UInt8] = [0x88, 0xA8, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7]
    let bytes = front + tags + IPv4Frame.udp().bytes[12...]
    #expect(line(bytes) == "\(stations), 802.1ad, length 59: [more than two tags]")
    #expect(line(Array(bytes.prefix(19))) == "\(stations), 802.1ad, length 19: [|vlan]")
  }

  @Test("Whatever the bytes are, and wherever they end, there is a line and it is short", arguments: 1...4)
  func hostile(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let bases = [
      IPv4Frame.udp().bytes, IPv4Frame.icmp(kind: 3, code: 4).bytes, ARPFrame().bytes, IPv6Frame.udp().bytes,
      IPv6Frame.solicitation().bytes,
      IPv6Frame.udp { $0.extensions = [(0, [0, 0, 1, 4, 0, 0, 0, 0]), (44, [0, 0, 0, 1, 0, 0, 0, 1])] }.bytes,
    ]
    for base in bases {
      for length in 0...base.count { #expect(line(Array(base.prefix(length))).count < 250) }
      for _ in 0..<1500 {
        var bytes = base
        for _ in 0...random.below(4) { bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next()) }
        let cut = Array(bytes.prefix(random.below(bytes.count + 1)))
        #expect(line(cut).count < 250, "\(cut)")
        let claimed = FrameSummary(cut.raw, frameLength: random.below(3000)).description
        #expect(claimed.count < 250)
      }
    }
  }

  @Test("A packet is the line of its frame, wherever it lies")
  func packets() throws {
    let pool = try PacketPool(.init(slots: 4, slotSize: 2048, hugePages: false))
    let short = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    #expect("\(short)" == line(IPv4Frame.udp().bytes))
    let long = try Packet(copying: IPv4Frame.udp([UInt8](repeating: 1, count: 3000)).bytes, in: pool)
    #expect("\(long)".hasSuffix("IPv4, length 3042: 10.0.0.2.5000 > 10.0.0.1.7: UDP, length 3000"))
    let empty = try Packet(count: 0, in: pool)
    #expect("\(empty)" == "[|ether], length 0")
  }

  @Test("Headers and errors name stations and hosts as people write them")
  func headers() throws {
    let frame = IPv4Frame.udp().bytes
    let ethernet = try EthernetHeader(decoding: frame.raw)
    #expect("\(ethernet)" == "\(stations), IPv4")
    #expect("\(try IPv4Header(decoding: frame.raw, at: 14))" == "10.0.0.2 > 10.0.0.1, UDP, ttl 3, length 33")
    #expect(
      "\(try UDPFrame.decode(frame.raw).flow)" == "\(stations), 10.0.0.2.5000 > 10.0.0.1.7")
    #expect("\(PacketFormatError(.unanswerable, .ipv4(.unspecified)))" == "unanswerable: 0.0.0.0")
    #expect("\(PacketFormatError(.otherProtocol, .etherType(.arp)))" == "otherProtocol: ARP")
    #expect("\(PacketFormatError(.unanswerable, .station(.broadcast)))" == "unanswerable: ff:ff:ff:ff:ff:ff")
    // A number that stands for an address is never shown.
    #expect(!"\(ethernet)".contains("back:"))
  }
}
