import LibeventConcurrency
import Netdev
import PacketFormats
import ReferenceFrames
import Responder
import Testing

/// Who is where on a link.
@Suite struct NeighborTableTests {
  private let pool: PacketPool
  private let start = LoopClock.Instant(nanoseconds: 1_000_000_000)
  private let network: IPv4Network

  init() throws {
    pool = try PacketPool(.init(slots: 64, hugePages: false))
    network = try #require(IPv4Network(Here.ip, prefixLength: 24))
  }

  private func table(capacity: Int = 1024) -> NeighborTable {
    NeighborTable(station: Here.mac, network: network, capacity: capacity)
  }

  private func packet(_ number: UInt8 = 0) throws -> Packet {
    try Packet(copying: [UInt8](repeating: 0, count: 14) + [number], in: pool)
  }

  private func host(_ number: UInt8) -> IPv4Address { IPv4Address(10, 0, 0, number) }
  private func station(_ number: UInt8) -> MACAddress { MACAddress(2, 0, 0, 0, 9, number) }

  private func arp(
    _ operation: ARPPacket.Operation, from number: UInt8, at station: MACAddress? = nil,
    to target: IPv4Address = Here.ip
  ) throws -> Packet {
    try ARPPacket(
      operation: operation, senderHardwareAddress: station ?? self.station(number), senderProtocolAddress: host(number),
      targetHardwareAddress: Here.mac, targetProtocolAddress: target
    ).makePacket(in: pool)
  }

  private func isQuestion(_ packet: Packet?, for number: UInt8) -> Bool {
    guard let packet, let arp = packet.withBytes({ try? ARPPacket(decoding: $0, at: 14) }) else { return false }
    return arp.operation == .request && arp.targetProtocolAddress == host(number)
      && arp.senderHardwareAddress == Here.mac
  }

  @Test func `a neighbor is asked for, the latest packet waits, and goes when the answer comes`() throws {
    var table = table()
    #expect(isQuestion(table.address(try packet(1), to: host(7), at: start, in: pool), for: 7))
    #expect(table.address(try packet(2), to: host(7), at: start.advanced(by: .milliseconds(999)), in: pool) == nil)
    #expect(table.learn(from: try arp(.reply, from: 8), at: start) == nil)
    let waited = try #require(table.learn(from: try arp(.reply, from: 7), at: start))
    #expect(waited[14] == 2)
    let header = try waited.withBytes { try EthernetHeader(decoding: $0) }
    #expect(header.destination == station(7) && header.source == Here.mac)
    let next = try #require(table.address(try packet(3), to: host(7), at: start, in: pool))
    #expect(next[14] == 3 && next[5] == 7 && table.station(of: host(7)) == station(7))
  }

  @Test func `a neighbor is asked again after a second, and forgotten after three, with the packet that waited`() throws
  {
    var table = table()
    _ = table.address(try packet(1), to: host(7), at: start, in: pool)
    #expect(
      isQuestion(table.address(try packet(2), to: host(7), at: start.advanced(by: .seconds(1)), in: pool), for: 7))
    #expect(table.count == 1 && pool.free == 63)
    table.expire(at: start.advanced(by: .seconds(3)))
    #expect(table.count == 0 && pool.free == 64)
    // One that has been silent for long is asked again.
    _ = table.address(try packet(1), to: host(7), at: start, in: pool)
    _ = table.learn(from: try arp(.reply, from: 7), at: start)
    #expect(
      isQuestion(table.address(try packet(2), to: host(7), at: start.advanced(by: .seconds(1200)), in: pool), for: 7))
  }

  @Test func `only those who are asked, or ask us, are learned of; others can say that they have moved`() throws {
    var table = table()
    _ = table.learn(from: try arp(.request, from: 5, to: host(99)), at: start)
    _ = table.learn(from: try arp(.reply, from: 1), at: start)
    _ = table.learn(from: try arp(.request, from: 6, at: .broadcast), at: start)
    _ = table.learn(from: try packet(), at: start)
    _ = table.learn(from: try Packet(copying: [1, 2], in: pool), at: start)
    #expect(table.count == 0)
    _ = table.learn(from: try arp(.request, from: 5), at: start)
    #expect(table.station(of: host(5)) == station(5))
    _ = table.learn(from: try arp(.request, from: 5, at: station(55), to: host(99)), at: start)
    #expect(table.station(of: host(5)) == station(55))
  }

  @Test func `it is bounded, and makes room of those who have not answered`() throws {
    var table = table(capacity: 3)
    for number in 10..<20 as Range<UInt8> { _ = table.address(try packet(), to: host(number), at: start, in: pool) }
    #expect(table.count == 3 && pool.free == 61)
    #expect(table.address(try packet(), to: host(30), at: start, in: pool) == nil)
    let later = start.advanced(by: .seconds(3))
    #expect(isQuestion(table.address(try packet(), to: host(30), at: later, in: pool), for: 30))
    #expect(table.count == 1)
  }

  @Test func `what is no frame is dropped`() throws {
    var table = table()
    _ = table.learn(from: try arp(.request, from: 5), at: start)
    #expect(table.address(try Packet(copying: [1, 2, 3], in: pool), to: host(5), at: start, in: pool) == nil)
  }

  @Test func `who is no neighbor is not asked for`() throws {
    var table = table()
    let others = [
      Here.ip, IPv4Address(0, 0, 0, 0), IPv4Address(10, 0, 1, 7), IPv4Address(127, 0, 0, 1),
      IPv4Address(240, 0, 0, 1),
    ]
    for other in others { #expect(table.address(try packet(), to: other, at: start, in: pool) == nil, "\(other)") }
    #expect(table.count == 0 && pool.free == 64)
    // Nor is one that no host can have, in a network of all addresses.
    let all = try #require(IPv4Network(host(6), prefixLength: 0))
    var wide = NeighborTable(station: Here.mac, network: all)
    for other in [IPv4Address(127, 0, 0, 1), IPv4Address(240, 0, 0, 1)] {
      #expect(wide.address(try packet(), to: other, at: start, in: pool) == nil, "\(other)")
    }
    #expect(wide.count == 0 && pool.free == 64)
  }

  @Test func `all hosts, and groups of them, are where everybody knows`() throws {
    var table = table()
    let stations: [(IPv4Address, MACAddress)] = [
      (IPv4Address(255, 255, 255, 255), .broadcast), (host(255), .broadcast), (host(0), .broadcast),
      (IPv4Address(224, 0, 0, 251), MACAddress(1, 0, 0x5E, 0, 0, 251)),
      (IPv4Address(239, 129, 2, 3), MACAddress(1, 0, 0x5E, 1, 2, 3)),
    ]
    for (address, station) in stations {
      let frame = try #require(table.address(try packet(9), to: address, at: start, in: pool), "\(address)")
      let header = try frame.withBytes { try EthernetHeader(decoding: $0) }
      #expect(header.destination == station && header.source == Here.mac && frame[14] == 9)
    }
    #expect(table.count == 0)
    // A network of two hosts has no broadcasts (RFC 3021).
    let pair = try #require(IPv4Network(host(6), prefixLength: 31))
    var small = NeighborTable(station: Here.mac, network: pair)
    #expect(isQuestion(small.address(try packet(), to: host(7), at: start, in: pool), for: 7))
  }
}
