import ArgumentParser
import ExampleSupport
import Netdev
import NetdevDevices
import NetdevProgram
import PacketFormats
import Responder
import StoreService

/// A key-value store on a UDP port of a network device.
@main struct KeyValueStore: Program {
  static let configuration = CommandConfiguration(
    commandName: "KeyValueStore", abstract: "Keeps values by their keys, and serves them over UDP.",
    discussion: "KeyValueStore tap:tap0 --address 10.0.0.2/24\n    printf 'set color blue' | nc -u -w1 10.0.0.2 7000")

  @Argument(help: "The device: tap:NAME, vhost-user:SOCKET, packet:INTERFACE, …") var device: String
  @Option(help: "The store's address, and its network, as 10.0.0.2/24.") var address: IPv4Network
  @Option(help: "The port.") var port: UInt16 = 7000

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 1
    let device = try await NetworkDevice.open(device, configuration: configuration)
    let responder = try Responder(
      macAddress: device.hardwareAddress, addresses: [address], ipv6Addresses: nil, udpEcho: .none)
    Output.standard.print(
      "\(device.information.name): try  printf 'set color blue' | nc -u -w1 \(address.address) \(port)")
    defer { Output.standard.print("\(device.totalStatistics)") }
    try await device.run { try await serve($0, responder, at: port) }
  }
}
