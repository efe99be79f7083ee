import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import Responder
import TestSupport
import Testing

@testable import Router

/// The example's router, over devices that do what a test says.
@Suite(.timeLimit(.minutes(2))) struct RouterTests {
  private static func host(_ link: UInt8, _ number: UInt8 = 2) -> IPv4Address { IPv4Address(10, 5, link, number) }
  private static func station(_ link: UInt8) -> MACAddress { MACAddress(2, 0, 0, 0, 5, link) }
  /// That of every scripted device.
  private static let own = MACAddress(2, 0, 0, 0, 0, 1)

  private struct Wired {
    let drivers: [ScriptedDriver]
    let devices: [NetworkDevice]
    /// For the test's own frames.
    let pool: PacketPool
    private let running: Task<Void, any Error>

    init(_ mode: ScriptedDriver.Mode = .release, mtus: [Int] = [1500, 1500]) async throws {
      pool = try PacketPool(.init(slots: 64, hugePages: false))
      drivers = mtus.map { ScriptedDriver(mode: mode, capacity: 64, mtu: $0) }
      let devices = try await NetworkDevice.open(drivers: drivers)
      let ports = try devices.enumerated().map { link, device in
        let network = try #require(IPv4Network(RouterTests.host(UInt8(link), 1), prefixLength: 24))
        return try IPv4Router.Port(device.queues[0], at: device.hardwareAddress, in: network)
      }
      let router = IPv4Router(ports)
      self.devices = devices
      running = Task { try await NetworkDevice.run(devices) { _, port in try await router.serve(port) } }
    }

    func end() async throws {
      running.cancel()
      await #expect(throws: CancellationError.self) { try await running.value }
      #expect(devices[0].pool.free == devices[0].pool.configuration.slots)
    }
  }

  private static func datagram(
    from link: UInt8, to destination: IPv4Address, timeToLive: UInt8 = 64, count: Int = 5, in pool: PacketPool
  ) throws -> Packet {
    try UDPFrame(
      sourceMAC: station(link), destinationMAC: own, source: host(link), destination: destination, sourcePort: 5000,
      destinationPort: 7000
    ).makePacket(payload: [UInt8](repeating: 1, count: count), in: pool, timeToLive: timeToLive)
  }

  private static func answer(_ question: [UInt8], in pool: PacketPool, at link: UInt8) throws -> Packet {
    let arp = try ARPPacket(decoding: question.raw, at: EthernetHeader.length)
    #expect(
      arp.operation == .request && arp.targetProtocolAddress == host(link) && arp.senderProtocolAddress == host(link, 1)
    )
    return try arp.reply(from: station(link)).makePacket(in: pool)
  }

  @Test func `a neighbor is asked for once, and what waited for it goes on with one router less before it`()
    async throws
  {
    let wired = try await Wired()
    let pool = wired.pool
    for _ in 0..<3 { await wired.drivers[0].deliver(try Self.datagram(from: 0, to: Self.host(1), in: pool)) }
    let question = try await wired.drivers[1].nextSent()
    try await eventually("all three are taken") { wired.devices[0].totalStatistics.packetsReceived == 3 }
    await wired.drivers[1].deliver(try Self.answer(question, in: pool, at: 1))
    // The latest one has waited; the checksums are looked at as it is decoded.
    let routed = try await wired.drivers[1].nextSent()
    let (flow, payload) = try UDPFrame.decode(routed.raw)
    #expect(flow.sourceMAC == Self.own && flow.destinationMAC == Self.station(1) && payload.count == 5)
    #expect(try IPv4Header(decoding: routed.raw, at: 14).timeToLive == 63)
    await wired.drivers[0].deliver(try Self.datagram(from: 0, to: Self.host(1), in: pool))
    #expect(try await wired.drivers[1].nextSent() == routed)
    #expect(wired.devices[1].totalStatistics.packetsSubmitted == 3)
    try await wired.end()
  }

  @Test func `a sender is told when its packet has passed too many routers, finds no network, or is too long`()
    async throws
  {
    let wired = try await Wired(mtus: [1500, 576])
    let pool = wired.pool
    let cases: [(type: UInt8, code: UInt8, packet: Packet)] = [
      (11, 0, try Self.datagram(from: 0, to: Self.host(1), timeToLive: 1, in: pool)),
      (3, 0, try Self.datagram(from: 0, to: IPv4Address(192, 0, 2, 1), in: pool)),
      (3, 4, try Self.datagram(from: 0, to: Self.host(1), count: 1000, in: pool)),
    ]
    for (type, code, packet) in cases {
      await wired.drivers[0].deliver(packet)
      try Self.expectError(type, code, in: try await wired.drivers[0].nextSent())
    }
    try await wired.end()
  }

  private static func expectError(_ type: UInt8, _ code: UInt8, in frame: [UInt8]) throws {
    let ip = try IPv4Header(decoding: frame.raw, at: 14)
    #expect(ip.source == host(0, 1) && ip.destination == host(0) && ip.protocol == .icmpv4)
    let message = try ICMPv4Message(decoding: frame.raw, at: 34, length: ip.payloadLength)
    #expect(frame[34] == type && message.code == code)
  }

  @Test func `the router answers for itself, and routes nothing that is not for its station`() async throws {
    let wired = try await Wired()
    let pool = wired.pool
    var stray = try Self.datagram(from: 0, to: Self.host(1), in: pool)
    try stray.storeUInt8(9, at: 5)
    await wired.drivers[0].deliver(stray)
    let question = ARPPacket(
      operation: .request, senderHardwareAddress: Self.station(0), senderProtocolAddress: Self.host(0),
      targetHardwareAddress: .zero, targetProtocolAddress: Self.host(0, 1))
    await wired.drivers[0].deliver(try question.makePacket(in: pool))
    let answer = try await wired.drivers[0].nextSent()
    #expect(try ARPPacket(decoding: answer.raw, at: 14).senderHardwareAddress == Self.own)
    // Who has asked is known.
    await wired.drivers[1].deliver(try Self.datagram(from: 1, to: Self.host(0), in: pool))
    let routed = try await wired.drivers[0].nextSent()
    #expect(try UDPFrame.decode(routed.raw).flow.destinationMAC == Self.station(0))
    #expect(wired.devices[1].totalStatistics.packetsSubmitted == 0)
    try await wired.end()
  }

  @Test func `a port that takes nothing holds up nobody`() async throws {
    let wired = try await Wired(.hold)
    let pool = wired.pool
    for link in 0..<2 as Range<UInt8> {
      let question = ARPPacket(
        operation: .request, senderHardwareAddress: Self.station(link), senderProtocolAddress: Self.host(link),
        targetHardwareAddress: .zero, targetProtocolAddress: Self.host(link, 1))
      await wired.drivers[Int(link)].deliver(try question.makePacket(in: pool))
      _ = try await wired.drivers[Int(link)].nextSent()
    }
    await wired.drivers[0].releaseAll()
    for _ in 0..<200 {
      while await !wired.drivers[0].deliver(try Self.datagram(from: 0, to: Self.host(1), in: pool)) {
        await Task.yield()
      }
    }
    try await eventually("what found no room is counted") {
      wired.devices[1].totalStatistics.packetsRefused == 200 - 63
    }
    await wired.drivers[1].deliver(try Self.datagram(from: 1, to: Self.host(0), in: pool))
    let routed = try await wired.drivers[0].nextSent()
    #expect(try UDPFrame.decode(routed.raw).flow.source == Self.host(1))
    try await wired.end()
  }
}
