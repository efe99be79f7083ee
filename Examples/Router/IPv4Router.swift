import LibeventConcurrency
import Netdev
import PacketFormats
import Responder

/// An IPv4 router between networks that it is connected to. All of its state is on the one loop that its ports share.
actor IPv4Router: LoopActor {
  struct Port {
    let queue: NetworkQueue
    var neighbors: NeighborTable
    var responder: Responder

    init(_ queue: NetworkQueue, at station: MACAddress, in network: IPv4Network) throws {
      self.queue = queue
      neighbors = NeighborTable(station: station, network: network)
      responder = try Responder(macAddress: station, addresses: [network], ipv6Addresses: nil)
    }
  }

  nonisolated let loop: LoopExecutor
  private var ports: [Port]

  init(_ ports: [Port]) {
    self.ports = ports
    loop = ports[0].queue.loop
  }

  /// Routes what comes in at a port, and answers what is for the router itself, until that ends.
  func serve(_ port: Int) async throws {
    try every(.seconds(1)) { router in router.ports[port].neighbors.expire(at: router.loop.clock.now) }
    for await var packet in ports[port].queue.packets {
      if let waited = ports[port].neighbors.learn(from: packet, at: loop.clock.now) { send(waited, to: port) }
      if let destination = packet.withBytes({ foreignDestination(of: $0, at: port) }) {
        route(consume packet, to: destination, from: port)
      } else if ports[port].responder.answer(&packet) {
        send(consume packet, to: port)
      }
    }
  }

  /// Whom a frame to this port's station is for, if that is none of the router's own addresses.
  private func foreignDestination(of frame: RawSpan, at port: Int) -> IPv4Address? {
    guard let ethernet = try? EthernetHeader(decoding: frame), ethernet.etherType == .ipv4,
      ethernet.destination == ports[port].neighbors.station,
      let ip = try? IPv4Header(decoding: frame, at: EthernetHeader.length), ip.destination.isHost,
      !ports.contains(where: { $0.neighbors.network.address == ip.destination })
    else { return nil }
    return ip.destination
  }

  private func route(_ packet: consuming Packet, to destination: IPv4Address, from port: Int) {
    guard let output = ports.firstIndex(where: { $0.neighbors.network.contains(destination) }) else {
      return sendError(.unreachable(.network), about: packet, to: port)
    }
    guard (try? packet.withMutableInternetFrame { $0.decrementHopLimit() }) == true else {
      return sendError(.timeExceeded, about: packet, to: port)
    }
    guard ports[output].queue.canSend(packet) else {
      let mtu = ports[output].queue.maximumFrameLength - EthernetHeader.length
      return sendError(.fragmentationNeeded(mtu: UInt16(clamping: mtu)), about: packet, to: port)
    }
    let (now, pool) = (loop.clock.now, ports[output].queue.pool)
    if let frame = ports[output].neighbors.address(packet, to: destination, at: now, in: pool) {
      send(frame, to: output)
    }
  }

  private func sendError(_ error: ICMPv4Error, about packet: consuming Packet, to port: Int) {
    // There is to be no error about some packets, such as errors.
    let own = ports[port].neighbors.network.address
    if let answer = try? error.makePacket(about: packet, from: own) { send(answer, to: port) }
  }

  /// A router drops what finds no room; the port's statistics count it.
  private func send(_ packet: consuming Packet, to port: Int) { _ = try? ports[port].queue.trySubmit(packet) }
}
