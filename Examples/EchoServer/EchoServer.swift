import ArgumentParser
import ExampleSupport
import Netdev
import NetdevDevices
import PacketFormats
import Responder

/// Answers ARP, neighbor discovery, ping and UDP echo on any network device of this build.
@main struct EchoServer: Program {
  static let configuration = CommandConfiguration(
    commandName: "EchoServer", abstract: "Answers ARP, ping and UDP echo on a network device.",
    discussion: """
      Without arguments it listens on 127.0.0.1:7007 and needs no rights:
          printf hello | nc -u -w1 127.0.0.1 7007
      On a TAP interface (as root), one queue pair a CPU:
          EchoServer 'tap:tap0?queues=2' --address 10.0.0.2/24 --address fd00::2/64
      Unless one is given, it has the IPv6 link-local address of its MAC address too.
      """)

  @Argument(
    help: """
      The device: host-udp:ADDRESS:PORT, tap:NAME?queues=N, tun:NAME, packet:INTERFACE?queues=N, vhost-user:SOCKET, loopback:
      """)
  var device = "host-udp:127.0.0.1:7007"

  @Option(help: "An address to answer for, such as 10.0.0.2/24 or fd00::2/64; may be repeated.")
  var address: [String] = []

  @Flag(help: "Print each queue's rates once a second.")
  var rates = false

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    let networks = try networks()
    let device = try await NetworkDevice.open(device)
    let template = try responder(at: try device.hardwareAddress, networks)
    let report = Report()
    greet(device, networks)
    defer {
      printTotals([device])
      report.print()
    }
    try await answer(device, template, report)
  }

  /// The heart: each received packet becomes its answer, and `send` returns when the device has released it.
  private func answer(_ device: NetworkDevice, _ template: Responder, _ report: Report) async throws {
    try await device.run { queue in
      var responder = template
      var unsent = 0
      if rates, queue.index == 0 { try queue.every(.seconds(1), Rates([device]).print) }
      defer { report.add(responder.statistics, unsent: unsent) }
      for await var packet in queue.packets {
        guard responder.answer(&packet) else { continue }
        do throws(NetworkDeviceError) {
          try await queue.send(consume packet)
        } catch {
          // What concerns one frame ends nothing.
          guard error.concernsOneFrame else { throw error }
          unsent += 1
        }
      }
    }
  }
}
