import Netdev
import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

/// Frames to be changed, built by the slow builder.
private struct FrameMaker {
  var random: SeededRandom

  enum Kind: CaseIterable {
    case udp, udpWithoutChecksum, tcp, icmp, other, udp6, udp6WithoutChecksum, tcp6, icmp6, other6
    var isIPv6: Bool { [.udp6, .udp6WithoutChecksum, .tcp6, .icmp6, .other6].contains(self) }
  }

  /// Zero and all ones are where one's complement has its corners.
  mutating func word() -> UInt16 {
    switch random.below(4) {
    case 0: 0
    case 1: 0xFFFF
    default: UInt16(truncatingIfNeeded: random.next())
    }
  }

  mutating func address(_ count: Int) -> [UInt8] {
    switch random.below(5) {
    case 0: [UInt8](repeating: 0, count: count)
    case 1: [UInt8](repeating: 0xFF, count: count)
    default: random.bytes(count)
    }
  }

  mutating func data() -> [UInt8] {
    random.below(3) == 0 ? [UInt8](repeating: 0, count: random.below(20)) : random.bytes(random.below(60))
  }

  mutating func frame(_ kind: Kind) -> [UInt8] {
    var bytes: [UInt8]
    if kind.isIPv6 {
      var frame = IPv6Frame()
      (frame.source, frame.destination) = (address(16), address(16))
      frame.hopLimit = UInt8(random.below(256))
      if random.below(3) == 0 { frame.extensions = [(60, [0, 0, 1, 4, 0, 0, 0, 0]), (43, [0, 0, 0, 0, 0, 0, 0, 0])] }
      (frame.proto, frame.payload) = transport(kind)
      frame.padding = [UInt8](repeating: 0, count: random.below(10))
      bytes = frame.bytes
    } else {
      var frame = IPv4Frame()
      (frame.source, frame.destination) = (address(4), address(4))
      frame.timeToLive = UInt8(random.below(256))
      frame.identification = word()
      if random.below(3) == 0 { frame.options = [148, 4, 0, 0] }
      (frame.proto, frame.payload) = transport(kind)
      frame.padding = [UInt8](repeating: 0, count: random.below(10))
      bytes = frame.bytes
    }
    for _ in 0..<random.below(3) { bytes.insert(contentsOf: [0x81, 0x00] + random.bytes(2), at: 12) }
    Checksums.repair(&bytes, keepingZero: kind == .udpWithoutChecksum || kind == .udp6WithoutChecksum)
    return bytes
  }

  private mutating func transport(_ kind: Kind) -> (UInt8, [UInt8]) {
    let data = data()
    switch kind {
    case .udp, .udp6, .udpWithoutChecksum, .udp6WithoutChecksum:
      return (17, bigEndian(word(), 2) + bigEndian(word(), 2) + bigEndian(8 + data.count, 2) + [0, 0] + data)
    case .tcp, .tcp6:
      return (6, bigEndian(word(), 2) + bigEndian(word(), 2) + random.bytes(8) + [0x50, 0x10, 0, 0, 0, 0, 0, 0] + data)
    case .icmp: return (1, [[8, 0][random.below(2)], 0, 0, 0] + bigEndian(word(), 2) + bigEndian(word(), 2) + data)
    case .icmp6:
      return (58, [[128, 129][random.below(2)], 0, 0, 0] + bigEndian(word(), 2) + bigEndian(word(), 2) + data)
    case .other, .other6: return (47, data)
    }
  }
}

/// All checksums of a frame, computed anew from its bytes by the slow way.
enum Checksums {
  /// Where the packet begins.
  static func start(_ bytes: [UInt8]) -> Int {
    var start = 14
    while number(bytes[(start - 2)..<start]) == 0x8100 || number(bytes[(start - 2)..<start]) == 0x88A8 { start += 4 }
    return start
  }

  static func repair(_ bytes: inout [UInt8], keepingZero: Bool = false) {
    let start = start(bytes)
    let isIPv6 = bytes[start] >> 4 == 6
    var (offset, proto, end) = (0, UInt8(0), 0)
    var pseudoHeader: [UInt8]
    if isIPv6 {
      (offset, proto, end) = (start + 40, bytes[start + 6], start + 40 + number(bytes[(start + 4)..<(start + 6)]))
      while proto == 60 || proto == 43 {
        proto = bytes[offset]
        offset += 8 + 8 * Int(bytes[offset + 1])
      }
      pseudoHeader = Array(bytes[(start + 8)..<(start + 40)]) + bigEndian(end - offset, 4) + [0, 0, 0, proto]
    } else {
      (offset, proto) = (start + 4 * Int(bytes[start] & 0xF), bytes[start + 9])
      end = start + number(bytes[(start + 2)..<(start + 4)])
      bytes.replaceSubrange((start + 10)..<(start + 12), with: [0, 0])
      bytes.replaceSubrange((start + 10)..<(start + 12), with: bigEndian(referenceChecksum(bytes[start..<offset]), 2))
      pseudoHeader = Array(bytes[(start + 12)..<(start + 20)]) + [0, proto] + bigEndian(end - offset, 2)
    }
    let place: Int
    switch proto {
    case 17: place = 6
    case 6: place = 16
    case 1, 58: place = 2
    default: return
    }
    if proto == 1 { pseudoHeader = [] }
    let field = (offset + place)..<(offset + place + 2)
    if proto == 17, keepingZero { return bytes.replaceSubrange(field, with: [0, 0]) }
    bytes.replaceSubrange(field, with: [0, 0])
    let sum = referenceChecksum(pseudoHeader + bytes[offset..<end])
    bytes.replaceSubrange(field, with: bigEndian(proto == 17 && sum == 0 ? 0xFFFF : sum, 2))
  }
}

@Suite("Frames changed in place (RFC 1624)")
struct MutableInternetFrameTests {
  private func change<Value>(
    _ bytes: inout [UInt8], _ body: (inout MutableInternetFrame) throws(PacketFormatError) -> Value
  ) throws(PacketFormatError) -> Value {
    try withMutableSpan(&bytes) { span throws(PacketFormatError) in
      var frame = try MutableInternetFrame(&span)
      return try body(&frame)
    }
  }

  /// 10 000 changes in each of four runs: the bytes after each are those of a frame built with the new field and summed anew.
  @Test("After every change the checksums are those of a full computation", arguments: 1...4)
  func checksums(seed: UInt64) throws {
    var maker = FrameMaker(random: SeededRandom(seed: seed))
    var changes = [Int](repeating: 0, count: 6)
    for index in 0..<10_000 {
      let kind = FrameMaker.Kind.allCases[index % FrameMaker.Kind.allCases.count]
      var bytes = maker.frame(kind)
      var expected = bytes
      let start = Checksums.start(bytes)
      let transport =
        kind.isIPv6 && bytes[start + 6] == 60 ? start + 56 : start + (kind.isIPv6 ? 40 : 4 * Int(bytes[start] & 0xF))
      let what = maker.random.below(6)
      let word = maker.word()
      var isDone = true
      switch what {
      case 0:
        isDone = try change(&bytes) { frame in frame.decrementHopLimit() }
        let place = start + (kind.isIPv6 ? 7 : 8)
        #expect(isDone == (expected[place] > 1))
        if isDone { expected[place] -= 1 }
      case 1, 2:
        let (address, place) = (maker.address(kind.isIPv6 ? 16 : 4), start + (kind.isIPv6 ? 8 : 12))
        let isSource = what == 1
        try change(&bytes) { frame throws(PacketFormatError) in
          if kind.isIPv6 {
            guard let new = IPv6Address(decoding: address.raw) else { return }
            try isSource ? frame.setSource(new) : frame.setDestination(new)
          } else {
            guard let new = IPv4Address(decoding: address.raw) else { return }
            try isSource ? frame.setSource(new) : frame.setDestination(new)
          }
        }
        let field = place + (isSource ? 0 : address.count)
        expected.replaceSubrange(field..<(field + address.count), with: address)
      case 3, 4:
        let isSource = what == 3
        isDone =
          (try? change(&bytes) { frame throws(PacketFormatError) in
            try isSource ? frame.setSourcePort(word) : frame.setDestinationPort(word)
          }) != nil
        #expect(isDone == [.udp, .udpWithoutChecksum, .tcp, .udp6, .udp6WithoutChecksum, .tcp6].contains(kind))
        let field = transport + (isSource ? 0 : 2)
        if isDone { expected.replaceSubrange(field..<(field + 2), with: bigEndian(word, 2)) }
      default:
        isDone = (try? change(&bytes) { frame throws(PacketFormatError) in try frame.setEchoIdentifier(word) }) != nil
        #expect(isDone == [.icmp, .icmp6].contains(kind))
        if isDone { expected.replaceSubrange((transport + 4)..<(transport + 6), with: bigEndian(word, 2)) }
      }
      Checksums.repair(&expected, keepingZero: kind == .udpWithoutChecksum || kind == .udp6WithoutChecksum)
      if isDone { changes[what] += 1 }
      guard bytes == expected else {
        Issue.record("seed \(seed), frame \(index), \(kind), change \(what): \(bytes) is not \(expected)")
        return
      }
    }
    #expect(changes.allSatisfy { $0 > 300 }, "\(changes)")
  }

  @Test("A checksum that was wrong stays wrong: the receiver sees it")
  func wrongStaysWrong() throws {
    var bytes = IPv4Frame.udp(checksumError: 5).bytes
    try change(&bytes) { frame throws(PacketFormatError) in
      try frame.setSource(IPv4Address(192, 168, 1, 1))
      try frame.setSourcePort(99)
    }
    expectError(.udpChecksum) { try UDPFrame.decode(bytes.raw) }
    #expect(try IPv4Header(decoding: bytes.raw, at: 14).source == IPv4Address(192, 168, 1, 1))
  }

  @Test("What the view reads is what the frame says")
  func reading() throws {
    var bytes = IPv4Frame.udp().bytes
    try change(&bytes) { frame in
      #expect(frame.source == .v4(There.ip) && frame.destination == .v4(Here.ip) && frame.transport == .udp)
      #expect(frame.sourcePort == 5000 && frame.destinationPort == 7 && frame.hopLimit == 3 && !frame.isIPv6)
      #expect(frame.echoIdentifier == nil && !frame.isFragment)
      frame.setStations(source: Here.mac, destination: There.mac)
    }
    #expect(Array(bytes.prefix(14)) == There.macBytes + Here.macBytes + [8, 0])
    bytes = IPv6Frame.icmp().bytes
    try change(&bytes) { frame in
      #expect(frame.source == .v6(There.ipv6) && frame.destination == .v6(Here.ipv6) && frame.isIPv6)
      #expect(frame.sourcePort == nil && frame.echoIdentifier != nil)
    }
  }

  @Test("The other family's address, and ports where there are none, are refused and change nothing")
  func refusals() throws {
    for base in [IPv4Frame.icmp().bytes, IPv6Frame.icmp().bytes] {
      var bytes = base
      let isIPv6 = base[12] == 0x86
      expectError(.ipVersion) {
        try change(&bytes) { frame throws(PacketFormatError) in
          try isIPv6 ? frame.setSource(Here.ip) : frame.setSource(Here.ipv6)
        }
      }
      expectError(.ipVersion) {
        try change(&bytes) { frame throws(PacketFormatError) in
          try isIPv6 ? frame.setDestination(Here.ip) : frame.setDestination(Here.ipv6)
        }
      }
      expectError(.otherProtocol) {
        try change(&bytes) { frame throws(PacketFormatError) in try frame.setSourcePort(1) }
      }
      #expect(bytes == base)
    }
    var arp = ARPFrame().bytes
    expectError(.otherProtocol) { try change(&arp) { frame in _ = frame.hopLimit } }
  }

  @Test("Of fragments, those behind the first have no ports; addresses change in all, with the sum of the whole right")
  func fragments() throws {
    // A datagram of 24 bytes of data in two fragments, put together again after both were translated.
    let whole = IPv4Frame.udp([UInt8](1...24)).payload
    var first = IPv4Frame()
    (first.fragmentField, first.payload) = (0x2000, Array(whole[..<16]))
    var second = IPv4Frame()
    (second.fragmentField, second.payload) = (2, Array(whole[16...]))
    let new = IPv4Address(172, 16, 3, 4)
    var pieces = [first.bytes, second.bytes]
    for index in pieces.indices {
      try change(&pieces[index]) { frame throws(PacketFormatError) in
        #expect(frame.isFragment && (frame.sourcePort == nil) == (index == 1))
        try frame.setSource(new)
        if index == 0 { try frame.setSourcePort(77) }
      }
    }
    let data = Array(pieces[0][34...]) + pieces[1][34...]
    #expect(referenceChecksum([172, 16, 3, 4] + Here.ipBytes + [0, 17] + bigEndian(32, 2) + data) == 0)
    expectError(.otherProtocol) {
      try change(&pieces[1]) { frame throws(PacketFormatError) in try frame.setDestinationPort(1) }
    }
    // Eight bytes of TCP: the checksum is in the next fragment.
    var tiny = IPv4Frame()
    (tiny.fragmentField, tiny.proto, tiny.payload) = (0x2000, 6, [UInt8](repeating: 1, count: 8))
    var bytes = tiny.bytes
    expectError(.truncated) { try change(&bytes) { frame throws(PacketFormatError) in try frame.setSource(new) } }
    #expect(bytes == tiny.bytes)
  }

  @Test("A destination that a source route or a routing header still has is not written")
  func routes() throws {
    var bytes = IPv6Frame.udp { $0.extensions = [(43, [0, 0, 0, 1, 0, 0, 0, 0])] }.bytes
    let before = bytes
    expectError(.ipSourceRoute) {
      try change(&bytes) { frame throws(PacketFormatError) in try frame.setDestination(There.ipv6) }
    }
    #expect(bytes == before)
    try change(&bytes) { frame throws(PacketFormatError) in try frame.setSource(Here.ipv6) }
    var old = IPv4Frame.udp { $0.options = [131, 3, 4, 0] }.bytes
    expectError(.ipSourceRoute) {
      try change(&old) { frame throws(PacketFormatError) in try frame.setDestination(There.ip) }
    }
  }

  @Test("Hostile lengths, headers and ends change nothing outside the packet and never trap", arguments: 1...4)
  func hostile(seed: UInt64) throws {
    var maker = FrameMaker(random: SeededRandom(seed: seed &* 77))
    var views = 0
    for index in 0..<8_000 {
      var bytes = maker.frame(FrameMaker.Kind.allCases[index % FrameMaker.Kind.allCases.count])
      for _ in 0..<maker.random.below(5) {
        bytes[12 + maker.random.below(min(bytes.count, 70) - 12)] = UInt8(truncatingIfNeeded: maker.random.next())
      }
      if maker.random.below(2) == 0, bytes.count > 40, bytes[12] == 8, bytes[14] >> 4 == 4 {
        let end = min(14 + 4 * max(5, Int(bytes[14] & 0xF)), bytes.count)
        bytes.replaceSubrange(24..<26, with: [0, 0])
        bytes.replaceSubrange(24..<26, with: bigEndian(referenceChecksum(bytes[14..<end]), 2))
      }
      bytes = Array(bytes.prefix(maker.random.below(bytes.count + 1)))
      let length = bytes.count
      bytes += [0xA5, 0x5A]
      _ = try? withMutableSpan(&bytes) { span throws(PacketFormatError) in
        var inner = span._mutatingExtracting(0..<length)
        var frame = try MutableInternetFrame(&inner)
        views += 1
        _ = frame.decrementHopLimit()
        _ = (frame.source, frame.destination, frame.sourcePort, frame.destinationPort, frame.echoIdentifier)
        try? frame.setSource(There.ip)
        try? frame.setSource(There.ipv6)
        try? frame.setDestination(There.ip)
        try? frame.setDestination(There.ipv6)
        try? frame.setSourcePort(1)
        try? frame.setDestinationPort(2)
        try? frame.setEchoIdentifier(3)
      }
      #expect(bytes.suffix(2) == [0xA5, 0x5A] && bytes.count == length + 2)
    }
    #expect(views > 250)
  }

  @Test("A frame cut at any byte is refused or is right")
  func truncations() throws {
    for base in [IPv4Frame.udp().bytes, IPv4Frame.icmp().bytes, IPv6Frame.udp().bytes, IPv6Frame.icmp().bytes] {
      for length in 0..<base.count {
        var bytes = Array(base.prefix(length))
        #expect(throws: PacketFormatError.self) { try change(&bytes) { frame in _ = frame.decrementHopLimit() } }
        #expect(bytes == Array(base.prefix(length)))
      }
    }
  }

  @Test("A packet that somebody else holds is changed in a copy, and one that is none is not copied")
  func packets() throws {
    let pool = try PacketPool(.init(slots: 4, hugePages: false))
    let kept = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    var mine = kept
    let isDone = try mine.withMutableInternetFrame { frame in frame.decrementHopLimit() }
    #expect(isDone && pool.copies == 1 && kept[22] == 3 && mine[22] == 2)
    let arp = try Packet(copying: ARPFrame().bytes, in: pool)
    var other = arp
    expectError(.otherProtocol) { try other.withMutableInternetFrame { frame in frame.decrementHopLimit() } }
    #expect(pool.copies == 1)
  }
}
