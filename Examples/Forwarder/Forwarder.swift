import ArgumentParser
import ExampleSupport
import Netdev
import NetdevProgram
import NetdevDevices

/// Joins two network devices of this build: what comes in at one goes out at the other, without a copy.
@main struct Forwarder: Program {
  static let configuration = CommandConfiguration(
    commandName: "Forwarder", abstract: "Joins two network devices, in both directions.",
    discussion: """
      Each queue pair of one device is joined to its counterpart of the other, on a loop of their own:
          Forwarder 'tap:tap0?queues=2' 'tap:tap1?queues=2' --rates 1
          Forwarder vhost-user:/run/switch.sock tap:tap0
      """)

  @Argument(
    help: """
      One device: tap:NAME?queues=N, tun:NAME, packet:INTERFACE?promiscuous=1, vhost-user:SOCKET, host-udp:ADDRESS:PORT, loopback:
      """)
  var left: String

  @Argument(help: "The other device.")
  var right: String

  @Option(help: "Queue pairs of a device whose URL does not say.")
  var queues: Int?

  @Option(help: "Print each queue's rates every so many seconds.")
  var rates: Int?

  func validate() throws {
    if let queues, !(1...256).contains(queues) { throw ValidationError("--queues is a number from 1 to 256") }
    if let rates, !(1...86_400).contains(rates) { throw ValidationError("--rates is a number from 1 to 86400") }
  }

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = queues
    let devices = try await NetworkDevice.open([left, right], configuration: configuration)
    let (left, right) = (devices[0], devices[1])
    let unfit = Unfit()
    let buffers = left.pool.configuration.slots
    Output.standard.print("\(left.information.name) <-> \(right.information.name), one pool of \(buffers) buffers")
    Output.standard.print("queue pairs: \(left.queues.count) and \(right.queues.count); Ctrl-C ends")
    defer {
      printTotals(devices)
      summarize(from: left, to: right, unfit)
      summarize(from: right, to: left, unfit)
    }
    try await forward(devices, unfit)
  }

  /// The heart: a full output holds its input back, and frames wait where they were received. Whichever device ends first ends the
  /// other.
  private func forward(_ devices: [NetworkDevice], _ unfit: Unfit) async throws {
    try await NetworkDevice.run(devices) { [rates] input, index in
      if let rates, index == 0, input.index == 0 { try input.every(.seconds(rates), Rates(devices).print) }
      let packets = input.packets
      let to = devices[1 - index]
      try await to.queues[input.index % to.queues.count].run { output in
        try await forward(packets, output, unfit)
      }
    }
  }

  /// One direction of one pair: frames that the output does not take are dropped and counted, and end nothing.
  private func forward(_ packets: NetworkQueue.Packets, _ output: isolated NetworkQueue, _ unfit: Unfit) async throws {
    while true {
      do {
        return try await output.forward(from: packets.filter { unfit.admits($0, output) })
      } catch let error as NetworkDeviceError where error.concernsOneFrame {
        unfit.count(output)
      }
    }
  }
}
