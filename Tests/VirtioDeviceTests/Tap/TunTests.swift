import NetdevTesting
import PacketFormats
import TestSupport
import Testing

@testable import VirtioDevice

private let device = MACAddress(2, 0, 0, 0, 0, 1)

extension [UInt8] {
  /// Judges these bytes as a frame of the device, in a buffer with room for an answer; and the buffer as it is then.
  fileprivate func judged() -> (TunLink.Judgement, [UInt8]) {
    var room = self + [UInt8](repeating: 0, count: Swift.max(0, 128 - count))
    var span = room.mutableSpan
    // Bytes have no padding.
    var bytes = unsafe span.mutableBytes
    let judgement = TunLink(device: device).judge(&bytes, length: count)
    return (judgement, room)
  }

  /// A frame of the device around these bytes.
  fileprivate func framed(_ type: EtherType, to destination: MACAddress = TunLink.router) -> [UInt8] {
    [destination, device].flatMap { address in (0..<6).map { address[$0] } }
      + [UInt8(truncatingIfNeeded: type.rawValue >> 8), UInt8(truncatingIfNeeded: type.rawValue)] + self
  }
}

/// The link between a device and an interface of layer 3.
@Suite struct TunLinkTests {
  private let own = IPv4Address(10, 0, 0, 2)

  private func encoded(
    _ count: Int, _ body: (inout MutableRawSpan) throws(PacketFormatError) -> Int
  ) throws(PacketFormatError) -> [UInt8] {
    var room = [UInt8](repeating: 0, count: count)
    var span = room.mutableSpan
    var bytes = unsafe span.mutableBytes
    _ = try body(&bytes)
    return room
  }

  private func question(
    for target: IPv4Address, from sender: IPv4Address, _ operation: ARPPacket.Operation = .request
  ) throws -> [UInt8] {
    try encoded(42) { (bytes) throws(PacketFormatError) in
      try ARPPacket(
        operation: operation, senderHardwareAddress: device, senderProtocolAddress: sender,
        targetHardwareAddress: .zero,
        targetProtocolAddress: target
      ).encodeFrame(into: &bytes, to: .broadcast)
    }
  }

  @Test func `every address but the device's own is at the router's station`() throws {
    let (judgement, answer) = try question(for: IPv4Address(192, 0, 2, 1), from: own).judged()
    #expect(judgement == .answer(length: 42))
    let arp = try ARPPacket(decoding: unsafe answer.span.bytes, at: 14)
    #expect(arp.operation == .reply && arp.senderHardwareAddress == TunLink.router)
    #expect(arp.senderProtocolAddress == IPv4Address(192, 0, 2, 1) && arp.targetHardwareAddress == device)
    // Whoever asks whether he may have an address, or says that he has it, is not contradicted.
    #expect(try question(for: own, from: .unspecified).judged().0 == .drop(.notForUs))
    #expect(try question(for: own, from: own).judged().0 == .drop(.notForUs))
    #expect(try question(for: own, from: own, .reply).judged().0 == .drop(.notForUs))
    #expect(Array(try question(for: own, from: own)[..<30]).judged().0 == .drop(.malformedFrame))
  }

  @Test func `solicitations are answered, those for an address that is not had yet are not`() throws {
    let target = try #require(IPv6Address("fd00::7"))
    let source = try #require(IPv6Address("fd00::2"))
    func solicitation(from source: IPv6Address) throws -> [UInt8] {
      let question = NeighborSolicitation(target: target, source: source, hardwareAddress: device)
      return try encoded(question.frameLength) { (bytes) throws(PacketFormatError) in
        try question.encodeFrame(into: &bytes)
      }
    }
    let (judgement, answer) = try solicitation(from: source).judged()
    #expect(judgement == .answer(length: 86))
    let bytes = unsafe answer.span.bytes.extracting(0..<86)
    let ip = try IPv6Header(decoding: bytes, at: 14)
    let payload = try IPv6Payload(decoding: bytes, at: 14, header: ip)
    let message = try ICMPv6Message(
      decoding: bytes, at: payload.offset, length: payload.length, pseudoHeader: ip.pseudoHeader(for: .icmpv6))
    let neighbor = try NeighborMessage(decoding: bytes, header: ip, payload: payload, message: message)
    #expect(neighbor.isAdvertisement && neighbor.target == target && neighbor.hardwareAddress == TunLink.router)
    #expect(ip.destination == source)
    #expect(try solicitation(from: .unspecified).judged().0 == .drop(.notForUs))
    var broken = try solicitation(from: source)
    broken[21] = 1
    #expect(broken.judged().0 == .drop(.malformedFrame))
  }

  @Test func `packets pass, other frames do not, and nothing that is cut short traps`() throws {
    let packet = [UInt8](repeating: 0x45, count: 20)
    #expect(packet.framed(.ipv4).judged().0 == .packet)
    #expect(packet.framed(.ipv4, to: .broadcast).judged().0 == .packet)
    #expect(packet.framed(.ipv6).judged().0 == .packet)
    #expect(packet.framed(.ipv4, to: MACAddress(2, 0, 0, 0, 0, 9)).judged().0 == .drop(.notForUs))
    #expect(packet.framed(.customerTag).judged().0 == .drop(.unsupportedProtocol))
    #expect([].framed(.ipv4).judged().0 == .drop(.malformedFrame))
    let source = try #require(IPv6Address("fd00::2"))
    let question = NeighborSolicitation(target: source, source: source, hardwareAddress: device)
    let whole = try encoded(86) { (bytes) throws(PacketFormatError) in try question.encodeFrame(into: &bytes) }
    for length in 0..<whole.count { _ = Array(whole[..<length]).judged() }
    for index in whole.indices {
      var bad = whole
      bad[index] ^= 0xFF
      _ = bad.judged()
    }
  }

  @Test(arguments: [(0x45 as UInt8, EtherType.ipv4 as EtherType?), (0x60, .ipv6), (0x00, nil), (0xFF, nil)])
  func `a packet's version is its frame's type`(_ first: UInt8, _ type: EtherType?) throws {
    var room = [UInt8](repeating: 0, count: 14) + [first, 0, 0]
    var span = room.mutableSpan
    var bytes = unsafe span.mutableBytes
    let refusal = TunLink(device: device).frame(&bytes)
    #expect(refusal == (type == nil ? .unsupportedProtocol : nil))
    guard let type else { return }
    let header = try EthernetHeader(decoding: unsafe room.span.bytes)
    #expect(header.etherType == type && header.source == TunLink.router && header.destination == device)
  }
}

extension TapBackendTests {
  @Suite struct Tun {
    @Test func `an interface of the other kind is refused with a word`() throws {
      try NetworkNamespace.run {
        let tap = try TapBackend("wire")
        let error = #expect(throws: BackendError.self) { _ = try TapBackend("wire", isLayer3: true) }
        #expect(error.map { "\($0)" }?.contains("TUN interface wire") == true)
        withExtendedLifetime(tap) {}
      }
    }

    @Test func `packets cross both ways, one that is too long does not`() throws {
      try NetworkNamespace.run {
        let backend = try TapBackend("tun0", isLayer3: true)
        #expect(backend.description == "tun tun0" && backend.mtu == 1500)
        let rig = try Rig(backend: backend)
        let sent = rig.offerTransmit(frame: [UInt8](repeating: 0x45, count: 1501).framed(.ipv4))
        rig.serve()
        #expect(rig.transmit.takeUsed()?.id == UInt32(sent.head))
        #expect(rig.engine.statistics.drops[.transmitted, .tooLong] == 1)
        let good = rig.offerTransmit(frame: ([0x45] + [UInt8](repeating: 0, count: 1499)).framed(.ipv4))
        rig.serve()
        #expect(rig.transmit.takeUsed()?.id == UInt32(good.head))
        #expect(rig.engine.statistics.transmittedFrames == 1)
      }
    }
  }
}
