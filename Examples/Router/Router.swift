import ArgumentParser
import ExampleSupport
import Netdev
import NetdevDevices
import PacketFormats

/// Routes IPv4 between the networks of several devices.
@main struct Router: Program {
  static let configuration = CommandConfiguration(
    commandName: "Router", abstract: "Routes IPv4 between networks.",
    discussion: "Router tap:rt0 10.5.0.1/24 tap:rt1 10.5.1.1/24")

  @Argument(help: "A device and the router's address there, in turn: tap:rt0 10.5.0.1/24 …") var ports: [String]

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    let urls = stride(from: 0, to: ports.count, by: 2).map { ports[$0] }
    let networks = stride(from: 1, to: ports.count, by: 2).compactMap { IPv4Network(ports[$0]) }
    guard urls.count >= 2, networks.count == urls.count else {
      throw ValidationError("write at least two devices, each with an address, as tap:rt0 10.5.0.1/24")
    }
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 1
    let devices = try await NetworkDevice.open(urls, configuration: configuration)
    let router = IPv4Router(
      try zip(devices, networks).map { try .init($0.queues[0], at: $0.hardwareAddress, in: $1) })
    defer { printTotals(devices) }
    try await NetworkDevice.run(devices) { _, port in try await router.serve(port) }
  }
}
