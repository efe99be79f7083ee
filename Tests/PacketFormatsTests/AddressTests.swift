import PacketFormats
import ReferenceFrames
import Testing

@Suite("Addresses: text, numbers, classes")
struct AddressTests {
  @Test("MAC addresses read and print as six pairs of hexadecimal digits")
  func macText() {
    let address = MACAddress(0x52, 0x54, 0x00, 0xAB, 0xCD, 0xEF)
    #expect(MACAddress("52:54:00:ab:cd:ef") == address)
    #expect(MACAddress("52-54-00-AB-CD-EF") == address)
    #expect(address.description == "52:54:00:ab:cd:ef")
    #expect((0..<6).map { address[$0] } == [0x52, 0x54, 0x00, 0xAB, 0xCD, 0xEF])
    #expect(address[-1] == 0 && address[6] == 0)
  }

  @Test(
    "MAC addresses in any other form are refused",
    arguments: [
      "", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:", "52:54:00:ab:cd:ef:01", "5254.00ab.cdef", "52:54:00:ab:cd:eg",
      "52:54-00:ab:cd:ef", "525400abcdef", "52:54:00:ab:cd:e", "é:54:00:ab:cd:ef", "52::4:00:ab:cd:ef",
    ])
  func macRefused(_ text: String) {
    #expect(MACAddress(text) == nil)
  }

  @Test("IEEE 802: the lowest bit of the first byte marks a group, the next one a local address")
  func macClasses() {
    #expect(MACAddress.broadcast.isBroadcast && MACAddress.broadcast.isGroup && !MACAddress.broadcast.isUnicast)
    let multicast = MACAddress(0x01, 0, 0x5E, 0, 0, 1)
    #expect(multicast.isGroup && !multicast.isBroadcast && !multicast.isUnicast)
    #expect(!MACAddress.zero.isUnicast && !MACAddress.zero.isGroup)
    #expect(Here.mac.isUnicast && Here.mac.isLocallyAdministered)
    #expect(!MACAddress(0x00, 1, 2, 3, 4, 5).isLocallyAdministered)
    #expect(MACAddress(rawValue: .max) == .broadcast)
  }

  @Test("IPv4 addresses read and print in dotted decimal")
  func ipText() {
    #expect(IPv4Address("10.0.0.1")?.rawValue == 0x0A00_0001)
    #expect(IPv4Address("255.255.255.255") == .broadcast)
    #expect(IPv4Address("0.0.0.0") == .unspecified)
    #expect(IPv4Address(192, 168, 1, 250).description == "192.168.1.250")
    #expect(IPv4Address(10, 0, 0, 1) < IPv4Address(10, 0, 1, 0))
  }

  @Test(
    "RFC 6943 §3.1.1: text that others read as another address is refused",
    arguments: [
      "", "10", "10.1", "10.0.1", "10.0.0.01", "010.0.0.1", "10.0.0.256", "10.0.0.1.", ".10.0.0.1", "10..0.1",
      "10.0.0.0x1", "10.0.0.1 ", "-1.0.0.0", "10.0.0.1.2", "99999999999.0.0.1", "00.0.0.0",
    ])
  func ipRefused(_ text: String) {
    #expect(IPv4Address(text) == nil)
  }

  @Test("RFC 1122 §3.2.1.3, RFC 1112 §4: the classes of addresses no host has")
  func ipClasses() {
    #expect(IPv4Address(0, 1, 2, 3).isThisNetwork && !IPv4Address(0, 1, 2, 3).isHost)
    #expect(IPv4Address(127, 255, 0, 1).isLoopback && !IPv4Address.loopback.isHost)
    #expect(IPv4Address(224, 0, 0, 1).isMulticast && !IPv4Address(224, 0, 0, 1).isHost)
    #expect(IPv4Address(239, 255, 255, 255).isMulticast)
    #expect(IPv4Address(240, 0, 0, 1).isReserved && !IPv4Address(240, 0, 0, 1).isHost)
    #expect(IPv4Address.broadcast.isLimitedBroadcast && !IPv4Address.broadcast.isHost)
    #expect(IPv4Address.unspecified.isUnspecified && !IPv4Address(0, 0, 0, 1).isUnspecified)
    for address in [IPv4Address(1, 0, 0, 0), IPv4Address(126, 1, 1, 1), IPv4Address(223, 255, 255, 255)] {
      #expect(address.isHost && !address.isMulticast && !address.isReserved)
    }
  }

  @Test("RFC 4632 §3.1: a prefix says which addresses are in the network")
  func network() throws {
    let network = try #require(IPv4Network("10.1.2.3/20"))
    #expect(network.address == IPv4Address(10, 1, 2, 3) && network.prefixLength == 20)
    #expect(network.mask == IPv4Address(255, 255, 240, 0))
    #expect(network.networkAddress == IPv4Address(10, 1, 0, 0))
    #expect(network.broadcastAddress == IPv4Address(10, 1, 15, 255))
    #expect(network.contains(IPv4Address(10, 1, 15, 1)) && !network.contains(IPv4Address(10, 1, 16, 1)))
    #expect(network.isBroadcast(IPv4Address(10, 1, 15, 255)) && network.isBroadcast(IPv4Address(10, 1, 0, 0)))
    #expect(!network.isBroadcast(IPv4Address(10, 1, 2, 255)))
    #expect(network.description == "10.1.2.3/20")
  }

  @Test("RFC 3021: networks of 31 and 32 bits have no broadcast address")
  func narrowNetworks() throws {
    for text in ["10.0.0.1/31", "10.0.0.1/32"] {
      let network = try #require(IPv4Network(text))
      #expect(network.broadcastAddress == nil)
      #expect(!network.isBroadcast(network.address))
    }
    let all = try #require(IPv4Network("10.0.0.1/0"))
    #expect(all.mask == .unspecified && all.contains(.broadcast) && all.broadcastAddress == .broadcast)
    #expect(IPv4Network("1.2.3.4/32")?.mask == .broadcast)
  }

  @Test(
    "Networks in any other form are refused",
    arguments: [
      "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/024", "10.0.0.1/-1", "/24", "10.0.0/24", "10.0.0.1/2x",
      "10.0.0.1/07", "10.0.0.1/24/24",
    ])
  func networkRefused(_ text: String) {
    #expect(IPv4Network(text) == nil)
  }

  @Test("A prefix outside 0 to 32 bits is refused")
  func prefixRefused() {
    #expect(IPv4Network(Here.ip, prefixLength: 33) == nil && IPv4Network(Here.ip, prefixLength: -1) == nil)
  }

  @Test("Addresses are decoded from bytes that are there, and only from those")
  func decoding() {
    let bytes: [UInt8] = [9, 1, 2, 3, 4, 5, 6]
    #expect(MACAddress(decoding: bytes.raw, at: 1) == MACAddress(1, 2, 3, 4, 5, 6))
    #expect(IPv4Address(decoding: bytes.raw, at: 3) == IPv4Address(3, 4, 5, 6))
    for offset in [2, 7, 8, -1, Int.max, Int.min] {
      #expect(MACAddress(decoding: bytes.raw, at: offset) == nil)
    }
    for offset in [4, -1, Int.max, Int.min] {
      #expect(IPv4Address(decoding: bytes.raw, at: offset) == nil)
    }
  }
}
