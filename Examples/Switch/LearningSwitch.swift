import LibeventConcurrency
import Netdev
import PacketFormats

/// What a switch knows and does, on the one loop that its ports share: no lock, and no hop.
actor LearningSwitch: LoopActor {
  struct Station {
    var port: Int
    var seen: LoopClock.Instant
  }

  nonisolated let loop: LoopExecutor
  /// How long a station that is silent is remembered.
  static let memory = Duration.seconds(300)

  private let ports: [NetworkQueue]
  private(set) var stations: [MACAddress: Station] = [:]

  /// - Parameter ports: queues of devices that were opened together.
  init(_ ports: [NetworkQueue]) {
    self.ports = ports
    loop = ports[0].loop
  }

  /// Passes on what comes in at a port, until that ends. An output without room drops; the others do not wait for it.
  func serve(_ port: Int) async throws {
    if port == 0 { try every(.seconds(10)) { $0.forget() } }
    for await packet in ports[port].packets {
      guard let header = packet.withBytes({ try? EthernetHeader(decoding: $0) }), header.source.isUnicast else {
        continue
      }
      stations[header.source] = Station(port: port, seen: loop.clock.now)
      if let output = stations[header.destination]?.port {
        if output != port { try send(packet, to: output) }
      } else {
        for output in ports.indices where output != port { try send(packet, to: output) }
      }
    }
  }

  /// Forgets stations that have been silent for long.
  private func forget() {
    let now = loop.clock.now
    stations = stations.filter { $0.value.seen.duration(to: now) < Self.memory }
  }

  private func send(_ packet: consuming Packet, to port: Int) throws {
    // A frame that is longer than the port's device takes goes nowhere.
    guard ports[port].canSend(packet) else { return }
    // What comes back has found no room: it is dropped, and the port's statistics count it.
    _ = try ports[port].trySubmit(packet)
  }
}
