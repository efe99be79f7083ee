import ArgumentParser
import ExampleSupport
import Netdev
import NetdevDevices

/// Joins two network devices of this build: what comes in at one goes out at the other, without a copy.
@main struct Forwarder: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "Forwarder", abstract: "Joins two network devices, in both directions.",
    discussion: """
      Each queue pair of one device is joined to its counterpart of the other, on a loop of their own:
          Forwarder 'tap:tap0?queues=2' 'tap:tap1?queues=2' --rates 1
          Forwarder vhost-user:/run/switch.sock tap:tap0
      """)

  @Argument(help: "One device: tap:NAME?queues=N, vhost-user:SOCKET, host-udp:ADDRESS:PORT, loopback:")
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

  mutating func run() async throws {
    do {
      try await join()
    } catch let error as NetworkDeviceError {
      throw reportFailure(of: "Forwarder", error)
    }
  }

  private func join() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = queues
    let devices = try await NetworkDevice.open([left, right], configuration: configuration)
    let (left, right) = (devices[0], devices[1])
    let tooLong = TooLong()
    let joint = Task { try await forward(left, right, tooLong) }
    let signals = EndingSignals { joint.cancel() }
    defer { signals.stop() }
    let buffers = left.pool.configuration.slots
    print("\(left.information.name) <-> \(right.information.name), one pool of \(buffers) buffers")
    print("queue pairs: \(left.queues.count) and \(right.queues.count); Ctrl-C ends")
    flushOutput()
    let printer = rates.map { seconds in Task { try await printRates(devices, every: seconds) } }
    let result = await joint.result
    printer?.cancel()
    printTotals(devices)
    summarize(from: left, to: right, tooLong)
    summarize(from: right, to: left, tooLong)
    // Asked to end, it has: what was in flight then is in the summary.
    if case .failure(let error) = result, !joint.isCancelled { throw error }
  }

  /// The heart: two tasks a pair of queues. A full output holds its input back, and frames wait where they were received.
  private func forward(_ left: NetworkDevice, _ right: NetworkDevice, _ tooLong: TooLong) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (from, to) in [(left, right), (right, left)] {
        group.addTask {
          try await from.run { input in
            let packets = input.packets
            try await to.queues[input.index % to.queues.count].run { output in
              try await output.forward(from: packets.filter { tooLong.fits($0, output) })
            }
          }
        }
      }
      // Whichever device ends first ends the other: its cause is thrown.
      try await group.next()
      group.cancelAll()
    }
  }
}
