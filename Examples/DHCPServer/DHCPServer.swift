import ArgumentParser
import ExampleSupport
import LibeventConcurrency
import NetdevDevices
import NetdevProgram
import PacketFormats
import Responder

/// Gives out IPv4 addresses on a link, and answers ARP and ping there:
///
///     DHCPServer tap:tap0 --network 10.9.0.1/24 --first 10.9.0.100 --count 50
@main struct DHCPServer: Program {
  static let configuration = CommandConfiguration(
    commandName: "DHCPServer", abstract: "Gives out IPv4 addresses on a network device.")

  @Argument(help: "The device: tap:NAME?queues=1, packet:INTERFACE, vhost-user:SOCKET, …") var device: String
  @Option(help: "The server's own address, and its network, as 10.9.0.1/24.") var network: IPv4Network
  @Option(help: "The first address to give out.") var first: IPv4Address
  @Option(help: "How many addresses to give out.") var count = 50

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    let device = try await NetworkDevice.open(device)
    let leases = Leases(network, from: first, count: count)
    Output.standard.print("\(device.information.name): \(count) addresses from \(first) on; Ctrl-C ends")
    defer { Output.standard.print("\(device.totalStatistics)") }
    try await device.run { try await serve($0, leases, at: device.hardwareAddress) }
  }
}

/// The server on one queue, whatever device that is of.
func serve(_ queue: isolated NetworkQueue, _ given: Leases, at own: MACAddress) async throws {
  var leases = given
  var responder = try Responder(macAddress: own, addresses: [leases.network])
  try queue.every(.seconds(1)) { leases.expire(at: queue.clock.now) }
  for await var packet in queue.packets {
    // A request that is cut short is no request. A client whose answer finds no room asks again.
    if let request = packet.withBytes({ (try? DHCPRequest($0)) ?? nil }) {
      guard let reply = leases.answer(request, at: queue.clock.now) else { continue }
      _ = try queue.trySubmit(reply.makePacket(to: request, from: own, leases, in: queue.pool))
    } else if responder.answer(&packet) {
      _ = try queue.trySubmit(consume packet)
    }
  }
}
