import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing

@testable import DHCPServer

private let network = IPv4Network(IPv4Address(10, 9, 0, 1), prefixLength: 24) ?? { preconditionFailure("24 bits") }()
private let own = MACAddress(2, 0, 0, 0, 0, 1)
private func client(_ number: UInt8) -> MACAddress { MACAddress(2, 0, 0, 0, 1, number) }
private func address(_ number: UInt8) -> IPv4Address { IPv4Address(10, 9, 0, number) }

/// A client's message as a frame.
private func frame(
  _ kind: DHCPKind, from client: MACAddress, wanting wanted: IPv4Address? = nil, of server: IPv4Address? = nil
) throws -> [UInt8] {
  let pool = try PacketPool(.init(slots: 4, hugePages: false))
  var message = try Packet(count: 300, in: pool)
  try message.storeUInt32(0x0101_0600, at: 0)
  try message.storeUInt32(0xCAFE, at: 4)
  try message.storeUInt64(client.rawValue << 16, at: 28)
  try message.storeUInt32(DHCPRequest.magic, at: 236)
  var offset = 240
  for (option, value) in [(0x3204 as UInt16, wanted), (0x3604, server)] {
    guard let value else { continue }
    try message.storeUInt16(option, at: offset)
    try message.storeUInt32(value.rawValue, at: offset + 2)
    offset += 6
  }
  // A pad option in front of the kind.
  try message.storeUInt32(0x0035_0100 | UInt32(kind.rawValue), at: offset)
  try message.storeUInt8(255, at: offset + 4)
  let flow = UDPFrame(
    sourceMAC: client, destinationMAC: .broadcast, source: .unspecified, destination: .broadcast, sourcePort: 68,
    destinationPort: 67)
  return [UInt8](try flow.makePacket(around: message))
}

/// What a reply says.
private struct Reply: Equatable {
  var kind: DHCPKind?
  var address: IPv4Address
  var station: MACAddress

  init(_ kind: DHCPKind, _ address: IPv4Address, to station: MACAddress) {
    (self.kind, self.address, self.station) = (kind, address, station)
  }

  init(_ frame: [UInt8]) throws {
    let bytes = frame.raw
    // The checksums are looked at here.
    let (flow, payload) = try UDPFrame.decode(bytes)
    #expect(flow.source == network.address && flow.sourcePort == 67 && flow.destinationPort == 68)
    let message = bytes.extracting(payload)
    #expect(try message.loadUInt32(at: 0) == 0x0201_0600)
    #expect(try message.loadUInt32(at: 4) == 0xCAFE)
    kind = DHCPKind(rawValue: try message.loadUInt8(at: 242))
    address = IPv4Address(rawValue: try message.loadUInt32(at: 16))
    station = flow.destinationMAC
  }
}

/// The decisions, without a device.
@Suite struct LeaseTests {
  private let start = LoopClock.Instant(nanoseconds: 1_000_000_000)

  private func request(
    _ kind: DHCPKind, _ number: UInt8, wanting wanted: IPv4Address? = nil, of server: IPv4Address? = nil
  ) throws -> DHCPRequest {
    let bytes = try frame(kind, from: client(number), wanting: wanted, of: server)
    return try #require(try DHCPRequest(bytes.raw))
  }

  @Test func `addresses are offered until none is left, and confirmed to those who were offered them`() throws {
    var leases = Leases(network, from: address(100), count: 3)
    for number in 0..<3 as Range<UInt8> {
      let reply = leases.answer(try request(.discover, number), at: start)
      #expect(reply == DHCPReply(kind: .offer, address: address(100 + number)))
    }
    #expect(leases.answer(try request(.discover, 3), at: start) == nil)
    let confirmed = leases.answer(try request(.request, 1, wanting: address(101)), at: start)
    #expect(confirmed == DHCPReply(kind: .acknowledge, address: address(101)))
    let refused = leases.answer(try request(.request, 2, wanting: address(77)), at: start)
    #expect(refused == DHCPReply(kind: .refuse, address: .unspecified))
    // Who has decided for another server's offer gives this one back.
    #expect(leases.answer(try request(.request, 0, wanting: address(9), of: address(2)), at: start) == nil)
    let next = leases.answer(try request(.discover, 3, wanting: address(100)), at: start)
    #expect(next == DHCPReply(kind: .offer, address: address(100)))
  }

  @Test func `an offer that nobody takes up is over after ten seconds, and a lease when its time is`() throws {
    var leases = Leases(network, from: address(100), count: 1)
    _ = leases.answer(try request(.discover, 1), at: start)
    #expect(leases.answer(try request(.discover, 2), at: start.advanced(by: .seconds(9))) == nil)
    let later = start.advanced(by: .seconds(10))
    #expect(leases.answer(try request(.discover, 2), at: later)?.address == address(100))
    _ = leases.answer(try request(.request, 2, wanting: address(100)), at: later)
    #expect(leases.answer(try request(.discover, 1), at: later.advanced(by: .seconds(599))) == nil)
    #expect(leases.answer(try request(.discover, 1), at: later.advanced(by: .seconds(600)))?.kind == .offer)
    // What a client gives back is free at once.
    _ = leases.answer(try request(.release, 1), at: later.advanced(by: .seconds(601)))
    #expect(leases.leases.isEmpty)
  }
}

/// The server on a queue.
@Suite(.timeLimit(.minutes(2))) struct DHCPServerTests {
  private func start(_ driver: ScriptedDriver) async throws -> (NetworkDevice, Task<Void, any Error>) {
    let device = try await NetworkDevice.open(driver: driver)
    let leases = Leases(network, from: address(100), count: 3)
    return (device, Task { try await device.run { try await serve($0, leases, at: own) } })
  }

  @Test func `a client has its address after four frames, and ping is answered too`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let (device, server) = try await start(driver)
    await driver.deliver(try frame(.discover, from: client(1)))
    #expect(try Reply(await driver.nextSent()) == Reply(.offer, address(100), to: client(1)))
    await driver.deliver(try frame(.request, from: client(1), wanting: address(100), of: network.address))
    #expect(try Reply(await driver.nextSent()) == Reply(.acknowledge, address(100), to: client(1)))
    let question = ARPPacket(
      operation: .request, senderHardwareAddress: client(1), senderProtocolAddress: address(100),
      targetHardwareAddress: .zero, targetProtocolAddress: network.address)
    await driver.deliver(try question.makePacket(in: device.pool))
    let answer = try await driver.nextSent()
    #expect(try ARPPacket(decoding: answer.raw, at: 14).senderHardwareAddress == own)
    server.cancel()
    await #expect(throws: CancellationError.self) { try await server.value }
    #expect(device.pool.free == device.pool.configuration.slots)
    #expect(device.pool.copies == 0 && device.totalStatistics.copiedToSend == 0)
  }

  @Test func `a device that takes nothing does not keep the server from what is to be done`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 2)
    let (device, server) = try await start(driver)
    for _ in 0..<5 { await driver.deliver(try frame(.discover, from: client(1))) }
    try await eventually("three answers found no room") { device.totalStatistics.packetsRefused == 3 }
    await driver.releaseAll()
    await driver.deliver(try frame(.discover, from: client(2)))
    for _ in 0..<2 { _ = try await driver.nextSent() }
    #expect(try Reply(await driver.nextSent()) == Reply(.offer, address(101), to: client(2)))
    server.cancel()
    _ = await server.result
  }

  @Test func `every cut and every flipped byte is survived`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let (device, server) = try await start(driver)
    let good = try frame(.discover, from: client(1))
    var frames = good.indices.map { Array(good[..<$0]) }
    for index in good.indices {
      var bad = good
      bad[index] ^= 0xFF
      frames.append(bad)
    }
    while !frames.isEmpty { frames.removeFirst(await driver.deliver(contentsOf: Array(frames.prefix(32)))) }
    await driver.deliver(try frame(.discover, from: client(9)))
    for try await reply in driver.sent().map({ try Reply($0) }) where reply.station == client(9) { break }
    server.cancel()
    await #expect(throws: CancellationError.self) { try await server.value }
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `the server ends with the cause when its device breaks`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let (_, server) = try await start(driver)
    await driver.breakQueue(NetworkDeviceError(.broken, "test"))
    let error = await #expect(throws: NetworkDeviceError.self) { try await server.value }
    #expect(error?.code == .broken)
  }
}
