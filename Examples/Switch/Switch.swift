import ArgumentParser
import ExampleSupport
import Netdev
import NetdevDevices

/// A learning switch between network devices of any kind.
@main struct Switch: Program {
  static let configuration = CommandConfiguration(
    commandName: "Switch", abstract: "Joins network devices as a learning switch.",
    discussion: "Switch tap:sw0 tap:sw1 vhost-user:/run/vm.sock --rates 1")

  @Argument(help: "Its ports, two or more: tap:NAME, packet:INTERFACE?promiscuous=1, vhost-user:SOCKET, …")
  var ports: [String]

  @Option(help: "Print what each port did every so many seconds.")
  var rates: Int?

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 1
    let devices = try await NetworkDevice.open(ports, configuration: configuration)
    let lan = LearningSwitch(devices.map { $0.queues[0] })
    defer { printTotals(devices) }
    try await NetworkDevice.run(devices) { [rates] queue, port in
      if let rates, port == 0 { try queue.every(.seconds(rates), Rates(devices).print) }
      try await lan.serve(port)
    }
  }
}
