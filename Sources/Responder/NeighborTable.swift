public import LibeventConcurrency
public import Netdev
public import PacketFormats

/// Who is where on a link of IPv4: what a program must know that sends packets of its own, or routes those of others (RFC 826).
///
/// ```swift
/// var neighbors = NeighborTable(station: own, network: network)
/// for await packet in queue.packets {
///   if let waited = neighbors.learn(from: packet, at: queue.clock.now) { _ = try queue.trySubmit(waited) }
///   …
///   if let frame = neighbors.address(answer, to: next, at: queue.clock.now, in: queue.pool) { _ = try queue.trySubmit(frame) }
/// }
/// ```
///
/// A packet for a neighbor that has not said yet where it is waits in the table, the latest one (RFC 1122 §2.3.2.2), and the
/// neighbor is asked, once a second at most. Answering the questions of others is `Responder`'s.
///
/// What strangers can make it keep is bounded: so many neighbors, each with one packet, those that do not answer for three
/// seconds. A neighbor is learned of by its answer, or its question to this station; any other ARP packet can only say that it has
/// moved.
public struct NeighborTable: Sendable {
  /// How long from one question to the next.
  public static var pause: Duration { .seconds(1) }
  /// How long a packet waits for an answer.
  public static var patience: Duration { .seconds(3) }
  /// How long a neighbor is remembered that has said nothing more of where it is (RFC 1122 §2.3.2.1 (1)).
  public static var memory: Duration { .seconds(1200) }

  private struct Neighbor: Sendable {
    var station: MACAddress?
    var waiting: Packet?
    /// When it was asked or heard first, of this state.
    var since: LoopClock.Instant
    /// When it was asked last.
    var asked: LoopClock.Instant

    func isOver(at now: LoopClock.Instant) -> Bool {
      since.duration(to: now) >= (station == nil ? NeighborTable.patience : NeighborTable.memory)
    }
  }

  /// Who asks.
  public let station: MACAddress
  /// Its address, and the network that its neighbors are in.
  public let network: IPv4Network
  /// Neighbors that the table holds at most.
  public let capacity: Int
  private var neighbors: [IPv4Address: Neighbor] = [:]

  /// An empty table.
  public init(station: MACAddress, network: IPv4Network, capacity: Int = 1024) {
    self.station = station
    self.network = network
    self.capacity = max(1, capacity)
  }

  /// Neighbors that are known, or have been asked for.
  public var count: Int { neighbors.count }

  /// Where a neighbor is, if that is known.
  public func station(of address: IPv4Address) -> MACAddress? { neighbors[address]?.station }

  /// Learns from a received frame, if it is an ARP packet.
  ///
  /// - Returns: a packet that has waited for its sender, addressed to that: it is to be sent now.
  public mutating func learn(from frame: borrowing Packet, at now: LoopClock.Instant) -> Packet? {
    guard (try? frame.loadUInt16(at: 12)) == EtherType.arp.rawValue,
      let arp = frame.withBytes({ try? ARPPacket(decoding: $0, at: EthernetHeader.length) }),
      arp.senderHardwareAddress.isUnicast, arp.senderHardwareAddress != station,
      network.contains(arp.senderProtocolAddress), arp.senderProtocolAddress != network.address
    else { return nil }
    let address = arp.senderProtocolAddress
    guard neighbors[address] != nil || (arp.targetProtocolAddress == network.address && makeRoom(at: now)) else {
      return nil
    }
    let before = neighbors.updateValue(
      Neighbor(station: arp.senderHardwareAddress, waiting: nil, since: now, asked: now), forKey: address)
    return before?.waiting.flatMap { addressed($0, to: arp.senderHardwareAddress) }
  }

  /// What to send now for a packet to a neighbor: the packet, addressed to its station; while that is not known, the question for
  /// it, and the packet waits; nil when it has just been asked.
  ///
  /// All hosts of the network, and groups of hosts, are addressed at once (RFC 1112 §6.4). Who is no neighbor cannot be asked for: this
  /// station itself, the address that means none, and hosts of other networks, to which the next hop leads; the packet is dropped.
  ///
  /// - Parameters:
  ///   - packet: a frame whose Ethernet addresses are to be written.
  ///   - address: the neighbor, which is the next hop of what goes farther.
  ///   - now: by the clock of the queue's loop.
  ///   - pool: where the buffer of a question comes from.
  public mutating func address(
    _ packet: consuming Packet, to address: IPv4Address, at now: LoopClock.Instant, in pool: PacketPool
  ) -> Packet? {
    if let group = group(address) { return addressed(packet, to: group) }
    guard network.contains(address), address != network.address, address.isHost else { return nil }
    if let neighbor = neighbors[address], !neighbor.isOver(at: now) {
      if let station = neighbor.station { return addressed(packet, to: station) }
      neighbors[address]?.waiting = consume packet
      guard neighbor.asked.duration(to: now) >= Self.pause else { return nil }
      neighbors[address]?.asked = now
    } else {
      guard neighbors[address] != nil || makeRoom(at: now) else { return nil }
      neighbors[address] = Neighbor(station: nil, waiting: consume packet, since: now, asked: now)
    }
    let question = ARPPacket(
      operation: .request, senderHardwareAddress: station, senderProtocolAddress: network.address,
      targetHardwareAddress: .zero, targetProtocolAddress: address)
    return try? question.makePacket(in: pool)
  }

  /// Forgets who has not answered, with the packets that waited, and who has been silent for long. A table that is full does so by
  /// itself; a program that is idle gets buffers back by it.
  public mutating func expire(at now: LoopClock.Instant) { neighbors = neighbors.filter { !$0.value.isOver(at: now) } }

  private mutating func makeRoom(at now: LoopClock.Instant) -> Bool {
    if neighbors.count >= capacity { expire(at: now) }
    return neighbors.count < capacity
  }

  /// The station that stands for several hosts; nil for a single one.
  private func group(_ address: IPv4Address) -> MACAddress? {
    if address.isMulticast { return MACAddress(rawValue: 0x0100_5E00_0000 | UInt64(address.rawValue & 0x7F_FFFF)) }
    return address.rawValue == .max || network.isBroadcast(address) ? .broadcast : nil
  }

  private func addressed(_ packet: consuming Packet, to destination: MACAddress) -> Packet? {
    do {
      try packet.storeUInt64(destination.rawValue << 16 | station.rawValue >> 32, at: 0)
      try packet.storeUInt32(UInt32(truncatingIfNeeded: station.rawValue), at: 8)
      return packet
    } catch {
      // Too short to be a frame.
      return nil
    }
  }
}
