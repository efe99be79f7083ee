import PacketFormats
import Testing

@testable import VirtioDevice

@Suite struct UDPGatewayTests {
  private let addresses = UDPGateway.Addresses(
    gatewayMAC: MACAddress(0x02, 0, 0, 0, 0, 1), gateway: IPv4Address(10, 0, 2, 2),
    deviceMAC: MACAddress(0x02, 0, 0, 0, 0, 2), device: IPv4Address(10, 0, 2, 15), devicePort: 7777,
    firstSender: IPv4Address(10, 64, 0, 0))
  private let sender = SenderTable.Key(address: IPv6Address(high: 0, low: 0xFFFF_7F00_0001), port: 40_000)

  private func makeGateway() -> UDPGateway {
    UDPGateway(
      addresses: addresses, senders: SenderTable(capacity: 16, expiry: 60_000_000_000, minimumIdle: 1_000_000_000))
  }

  /// A frame of the device, as bytes.
  // `mutableBytes` of bytes: any value is a valid byte.
  private func frame(_ flow: UDPFrame, payload: [UInt8]) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: UDPFrame.headerLength) + payload
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    _ = try flow.encode(into: &raw, payloadLength: payload.count)
    return bytes
  }

  private func answer(_ gateway: inout UDPGateway, _ frame: [UInt8], now: UInt64 = 1) -> UDPGateway.Answer {
    var copy = frame
    var span = copy.mutableSpan
    var raw = unsafe span.mutableBytes
    return gateway.answer(&raw, length: frame.count, now: now)
  }

  /// Lets the sender say something, so that it is known; the flow of the frame that the device saw.
  private func introduce(_ gateway: inout UDPGateway) throws -> UDPFrame {
    var bytes = [UInt8](repeating: 0, count: 64)
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    let built = gateway.frame(from: sender, payloadLength: 5, in: &raw, now: 0)
    let length = try #require(built)
    #expect(length == 47)
    return try UDPFrame.decode(raw.bytes.extracting(0..<length)).flow
  }

  @Test func `a datagram becomes a frame from the sender's address behind the gateway to the device`() throws {
    var gateway = makeGateway()
    let flow = try introduce(&gateway)
    #expect(
      flow
        == UDPFrame(
          sourceMAC: addresses.gatewayMAC, destinationMAC: addresses.deviceMAC, source: IPv4Address(10, 64, 0, 1),
          destination: addresses.device, sourcePort: 40_000, destinationPort: 7777))
  }

  @Test func `an answer goes back to the sender, with exactly its payload`() throws {
    var gateway = makeGateway()
    let flow = try introduce(&gateway)
    let reply = try frame(flow.reversed, payload: [1, 2, 3]) + [0, 0, 0, 0]
    let padded = answer(&gateway, reply)
    #expect(padded == .datagram(to: sender, payload: 42..<45))
    let empty = answer(&gateway, try frame(flow.reversed, payload: []))
    #expect(empty == .datagram(to: sender, payload: 42..<42))
  }

  @Test func `what is not for a known sender from the device's own address and port is dropped, by reason`() throws {
    var gateway = makeGateway()
    let good = try introduce(&gateway).reversed
    func expect(_ wanted: UDPGateway.Answer, _ change: (inout UDPFrame) -> Void) throws {
      var flow = good
      change(&flow)
      let outcome = answer(&gateway, try frame(flow, payload: [1]))
      #expect(outcome == wanted, "\(flow)")
    }
    try expect(.drop(.unknownPeer)) { $0.destination = IPv4Address(10, 64, 0, 2) }
    try expect(.drop(.unknownPeer)) { $0.destination = IPv4Address(10, 64, 0, 0) }
    try expect(.drop(.unknownPeer)) { $0.destination = IPv4Address(8, 8, 8, 8) }
    try expect(.drop(.unknownPeer)) { $0.destination = addresses.gateway }
    try expect(.drop(.unknownPeer)) { $0.destinationPort = 1 }
    try expect(.drop(.notForUs)) { $0.source = IPv4Address(10, 0, 2, 16) }
    try expect(.drop(.notForUs)) { $0.sourcePort = 7778 }
    try expect(.drop(.notForUs)) { $0.destinationMAC = MACAddress(2, 0, 0, 0, 0, 9) }
    try expect(.drop(.notForUs)) { $0.destinationMAC = .broadcast }
    try expect(.drop(.malformedFrame)) { $0.sourceMAC = .broadcast }
  }

  @Test func `frames that are broken or no UDP are dropped, by reason`() throws {
    var gateway = makeGateway()
    let good = try frame(introduce(&gateway).reversed, payload: [1, 2, 3, 4])
    func expect(_ wanted: DropReason, changing index: Int, to value: UInt8) {
      var bytes = good
      bytes[index] = value
      let outcome = answer(&gateway, bytes)
      #expect(outcome == .drop(wanted))
    }
    expect(.unsupportedProtocol, changing: 12, to: 0x86)
    expect(.malformedFrame, changing: 24, to: 0x55)
    expect(.malformedFrame, changing: 45, to: 0x55)
    for length in 0..<good.count {
      let outcome = answer(&gateway, Array(good.prefix(length)))
      #expect(outcome == .drop(.malformedFrame), "cut to \(length) bytes")
    }
  }

  @Test func `a frame to a sender that has expired is dropped`() throws {
    var gateway = makeGateway()
    let reply = try frame(introduce(&gateway).reversed, payload: [1])
    let outcome = answer(&gateway, reply, now: 61_000_000_000)
    #expect(outcome == .drop(.unknownPeer))
  }

  @Test func `the gateway answers ARP for its own address only`() throws {
    var gateway = makeGateway()
    func request(_ target: IPv4Address) throws -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: 60)
      var span = bytes.mutableSpan
      var raw = unsafe span.mutableBytes
      try EthernetHeader(destination: .broadcast, source: addresses.deviceMAC, etherType: .arp).encode(into: &raw)
      try ARPPacket(
        operation: .request, senderHardwareAddress: addresses.deviceMAC, senderProtocolAddress: addresses.device,
        targetHardwareAddress: .zero, targetProtocolAddress: target
      ).encode(into: &raw, at: EthernetHeader.length)
      return bytes
    }
    var bytes = try request(addresses.gateway)
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    let outcome = gateway.answer(&raw, length: 60, now: 0)
    #expect(outcome == .reply(length: 42))
    let header = try EthernetHeader(decoding: raw.bytes)
    #expect(header.destination == addresses.deviceMAC)
    let reply = try ARPPacket(decoding: raw.bytes, at: EthernetHeader.length)
    #expect(reply.operation == .reply)
    #expect(reply.senderHardwareAddress == addresses.gatewayMAC)
    #expect(reply.senderProtocolAddress == addresses.gateway)
    for other in [IPv4Address(10, 0, 2, 3), IPv4Address(10, 64, 0, 1)] {
      let outcome = answer(&gateway, try request(other))
      #expect(outcome == .drop(.notForUs))
    }
  }
}
