import Netdev
import PacketFormats
import ReferenceFrames
import Testing

@Suite("VLAN tags (IEEE 802.1Q, 802.1ad)")
struct VLANTests {
  private let pool: PacketPool

  init() throws { pool = try PacketPool(.init(slots: 16, hugePages: false)) }

  @Test("A tag's fields stand where they belong")
  func fields() throws {
    let tag = try VLANTag(identifier: 0xABC, priority: 5, isDropEligible: true)
    #expect(tag.control == 0xBABC && tag.etherType == .customerTag)
    #expect(tag.identifier == 0xABC && tag.priority == 5 && tag.isDropEligible)
    #expect("\(tag)" == "vlan 2748, p 5, DEI")
    expectError(.vlanIdentifier) { try VLANTag(identifier: 4095) }
    expectError(.vlanIdentifier) { try VLANTag(identifier: 1, priority: 8) }
    expectError(.otherProtocol) { try VLANTag(identifier: 1, etherType: .ipv4) }
  }

  @Test("Pushed tags stand behind the addresses, and popping takes them off in turn, in the headroom")
  func pushAndPop() throws {
    let bytes = IPv4Frame.udp().bytes
    let inner = try VLANTag(identifier: 100, priority: 3)
    let outer = try VLANTag(identifier: 5, etherType: .serviceTag)
    var packet = try Packet(copying: bytes, in: pool)
    #expect(packet.vlanTag == nil && packet.popVLANTag() == nil)
    try packet.pushVLANTag(inner)
    #expect([UInt8](packet) == Array(bytes[..<12]) + [0x81, 0x00, 0x60, 0x64] + bytes[12...])
    try packet.pushVLANTag(outer)
    #expect(
      [UInt8](packet) == Array(bytes[..<12]) + [0x88, 0xA8, 0x00, 0x05, 0x81, 0x00, 0x60, 0x64] + bytes[12...])
    let header = try packet.withBytes { (span) throws(PacketFormatError) in try TaggedHeader(decoding: span) }
    #expect(header.outerTag == outer && header.innerTag == inner && header.etherType == .ipv4 && header.length == 22)
    #expect(packet.vlanTag == outer)
    #expect(packet.popVLANTag() == outer && packet.popVLANTag() == inner && packet.popVLANTag() == nil)
    #expect([UInt8](packet) == bytes && pool.copies == 0)
  }

  @Test("What somebody else holds keeps its tags")
  func sharing() throws {
    let tag = try VLANTag(identifier: 9)
    var packet = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    try packet.pushVLANTag(tag)
    let kept = packet
    #expect(packet.popVLANTag() == tag && kept.vlanTag == tag && packet.vlanTag == nil)
    #expect(pool.copies == 1)
  }

  @Test("A header with tags is written as it was read; a third tag is refused; so is one cut short")
  func header() throws {
    let front = Here.macBytes + There.macBytes
    for tags in [[], [0x81, 0, 1, 2], [0x88, 0xA8, 3, 4, 0x91, 0, 5, 6]] as [[UInt8]] {
      let bytes = front + tags + [0x08, 0x00, 0x45]
      let header = try TaggedHeader(decoding: bytes.raw)
      #expect(header.length == 14 + tags.count && header.etherType == .ipv4)
      #expect(header.destination == Here.mac && header.source == There.mac)
      var again = [UInt8](repeating: 0xEE, count: header.length + 1)
      try withMutableSpan(&again) { span throws(PacketFormatError) in try header.encode(into: &span) }
      #expect(again == Array(bytes[..<header.length]) + [0xEE])
      for length in 0..<header.length {
        let short = Array(bytes.prefix(length))
        expectError(.truncated) { try TaggedHeader(decoding: short.raw) }
        var room = [UInt8](repeating: 0xEE, count: length)
        expectError(.truncated) {
          try withMutableSpan(&room) { span throws(PacketFormatError) in try header.encode(into: &span) }
        }
        #expect(room == [UInt8](repeating: 0xEE, count: length))
      }
    }
    let three = front + [0x81, 0, 1, 2, 0x81, 0, 1, 2, 0x81, 0, 1, 2, 8, 0]
    expectError(.vlanTagged) { try TaggedHeader(decoding: three.raw) }
  }

  @Test("Frames that are too short for a tag are refused or have none, at every length")
  func short() throws {
    let tag = try VLANTag(identifier: 9)
    let tagged = Here.macBytes + There.macBytes + [0x81, 0, 0, 9]
    for length in 0..<16 {
      var packet = try Packet(copying: Array(tagged.prefix(length)), in: pool)
      #expect(packet.vlanTag == nil && packet.popVLANTag() == nil && packet.count == length)
      if length < 12 {
        expectError(.truncated) { try packet.pushVLANTag(tag) }
        #expect(packet.count == length)
      } else {
        try packet.pushVLANTag(tag)
        #expect(packet.popVLANTag() == tag && [UInt8](packet) == Array(tagged.prefix(length)))
      }
    }
    var longest = try Packet(count: 65_532, in: pool)
    expectError(.payloadTooLong) { try longest.pushVLANTag(tag) }
    #expect(longest.count == 65_532)
  }
}
