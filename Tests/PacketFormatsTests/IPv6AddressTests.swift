import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("IPv6 addresses: text, halves, classes")
struct IPv6AddressTests {
  @Test(
    "RFC 4291 §2.2 is read and RFC 5952 is written",
    arguments: [
      ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("0:0:0:0:0:0:0:0", "::"), ("fd00::1", "fd00::1"),
      ("FE80::00FF:FE00:1", "fe80::ff:fe00:1"), ("2001:0db8:0:0:8:800:200C:417A", "2001:db8::8:800:200c:417a"),
      // RFC 5952 §4.2.2: one group of zeros is not shortened; §4.2.3: the longest run is, the first of equals.
      ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
      ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
      ("1:2:3:4:5:6::", "1:2:3:4:5:6::"),
      ("::ffff:192.0.2.1", "::ffff:192.0.2.1"), ("::ffff:c000:201", "::ffff:192.0.2.1"), ("::13.1.68.3", "::d01:4403"),
      ("1:2:3:4:5:6:7.8.9.10", "1:2:3:4:5:6:708:90a"),
      ("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ])
  func text(_ given: String, _ canonical: String) throws {
    let address = try #require(IPv6Address(given))
    #expect(address.description == canonical)
    #expect(IPv6Address(canonical) == address)
  }

  @Test(
    "Text in any other form is refused",
    arguments: [
      "", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1::", "1::2::3", "1:::2",
      ":1::",
      "1::2:", "12345::", "g::", "fe80::1%eth0", " ::1", "::1 ", "::1/64", "1.2.3.4", "::1.2.3", "::1.2.3.4:5",
      "::1.2.3.04", "1:2:3:4:5:6:7:1.2.3.4", "[::1]", "::-1", "::0x1", "é::",
      "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
    ])
  func refused(_ text: String) {
    #expect(IPv6Address(text) == nil)
  }

  @Test("What is written is read again as the same address, whatever zeros it has")
  func roundTrip() {
    var random = SeededRandom(seed: 5952)
    for _ in 0..<5000 {
      // Each group is zero with a chance of a half, so that there are runs of every length and place.
      let groups = (0..<8).map { _ in random.below(2) == 0 ? 0 : random.next() & 0xFFFF }
      let address = IPv6Address(
        high: groups[..<4].reduce(0) { $0 << 16 | $1 }, low: groups[4...].reduce(0) { $0 << 16 | $1 })
      #expect(IPv6Address(address.description) == address, "\(groups)")
      let full = groups.map { String($0, radix: 16) }.joined(separator: ":")
      #expect(IPv6Address(full) == address)
    }
  }

  @Test("RFC 4291 §2.4 to §2.7: the classes of addresses, and which a host can have in a packet")
  func classes() throws {
    func address(_ text: String) throws -> IPv6Address { try #require(IPv6Address(text)) }
    #expect(IPv6Address.unspecified.isUnspecified && !IPv6Address.unspecified.isHost)
    #expect(IPv6Address.loopback.isLoopback && !IPv6Address.loopback.isHost)
    #expect(try address("ff02::1") == .allNodes && IPv6Address.allNodes.isMulticast && !IPv6Address.allNodes.isHost)
    #expect(try address("ff00::").isMulticast && !address("fe00::").isMulticast)
    #expect(try address("::ffff:10.0.0.1").isIPv4Mapped && !address("::ffff:10.0.0.1").isHost)
    #expect(try !address("::fffe:10.0.0.1").isIPv4Mapped && address("::fffe:10.0.0.1").isHost)
    for text in ["fe80::", "fe80::1", "febf:ffff::1"] { #expect(try address(text).isLinkLocal && address(text).isHost) }
    for text in ["fe7f::1", "fec0::1", "fd00::1", "::2", "1::1"] {
      #expect(try !address(text).isLinkLocal && address(text).isHost)
    }
    #expect(try address("1::") < address("1::1") && address("1::1") < address("2::"))
  }

  @Test("RFC 4291 §2.7.1, RFC 2464 §7: the group and the stations that are asked for an address")
  func solicitedNode() throws {
    // The example of RFC 4291 §2.7.1.
    let address = try #require(IPv6Address("4037::01:800:200e:8c6c"))
    #expect(address.solicitedNode.description == "ff02::1:ff0e:8c6c" && address.solicitedNode.isSolicitedNode)
    #expect(address.solicitedNode.multicastMAC.description == "33:33:ff:0e:8c:6c")
    #expect(!IPv6Address.allNodes.isSolicitedNode && !address.isSolicitedNode)
    #expect(try !#require(IPv6Address("ff02::1:fe0e:8c6c")).isSolicitedNode)
    #expect(try !#require(IPv6Address("ff05::1:ff0e:8c6c")).isSolicitedNode)
    #expect(IPv6Address.allNodes.multicastMAC.description == "33:33:00:00:00:01")
  }

  @Test("RFC 2464 §4: the link-local address of a station")
  func linkLocal() throws {
    // The example of RFC 2464 §4.
    let mac = try #require(MACAddress("34-56-78-9A-BC-DE"))
    #expect(IPv6Address(linkLocal: mac).description == "fe80::3656:78ff:fe9a:bcde")
    #expect(IPv6Address(linkLocal: Here.mac) == Here.linkLocal)
    #expect(IPv6Network(linkLocal: Here.mac).description == "fe80::ff:fe00:1/64")
  }

  @Test("RFC 4291 §2.3: a prefix says which addresses are in the network", arguments: 0...128)
  func network(_ prefixLength: Int) throws {
    let address = try #require(IPv6Address("fd12:3456:789a:bcde:f012:3456:789a:bcde"))
    let network = try #require(IPv6Network(address, prefixLength: prefixLength))
    #expect(network.contains(address))
    for bit in 0..<128 {
      let high: UInt64 = bit < 64 ? 1 << UInt64(63 - bit) : 0
      let low: UInt64 = bit < 64 ? 0 : 1 << UInt64(127 - bit)
      let other = IPv6Address(high: address.high ^ high, low: address.low ^ low)
      #expect(network.contains(other) == (bit >= prefixLength), "bit \(bit)")
    }
    #expect(IPv6Network(network.description) == network)
  }

  @Test(
    "Networks in any other form are refused",
    arguments: [
      "fd00::1", "fd00::1/", "fd00::1/129", "fd00::1/064", "fd00::1/-1", "/64", "fd00::1/64/64", "10.0.0.1/24",
      "fd00::1/1000",
    ])
  func networkRefused(_ text: String) {
    #expect(IPv6Network(text) == nil)
  }

  @Test("A prefix outside 0 to 128 bits is refused")
  func prefixRefused() {
    #expect(IPv6Network(Here.ipv6, prefixLength: 129) == nil && IPv6Network(Here.ipv6, prefixLength: -1) == nil)
  }

  @Test("Addresses are decoded from bytes that are there, and only from those")
  func decoding() {
    let bytes = [9] + Here.linkLocalBytes
    #expect(IPv6Address(decoding: bytes.raw, at: 1) == Here.linkLocal)
    for offset in [2, 17, -1, Int.max, Int.min] { #expect(IPv6Address(decoding: bytes.raw, at: offset) == nil) }
  }
}
