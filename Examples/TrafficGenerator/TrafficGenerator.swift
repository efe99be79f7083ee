import ArgumentParser
import ExampleSupport
import Netdev
import NetdevDevices
import NetdevProgram

/// Sends frames through one device, and says how many came in at another, or at the same, and how long they took.
@main struct TrafficGenerator: Program {
  static let configuration = CommandConfiguration(
    commandName: "TrafficGenerator", abstract: "Sends frames, and measures how long they are under way.",
    discussion: "TrafficGenerator loopback: --rate 100000\n    TrafficGenerator tap:tap0 tap:tap1 --size 1500")

  @Argument(help: "The device to send through.") var output: String
  @Argument(help: "The device to receive from; the same without one.") var input: String?
  @Option(help: "Bytes of a frame, 32 or more.") var size = 64
  @Option(help: "How many seconds to send.") var seconds = 3.0
  @Option(help: "Frames a second; 0 for as many as the device takes.") var rate = 0.0
  @Flag(help: "Draw how long the frames took.") var bars = false

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  func validate() throws {
    guard (32...65_535).contains(size), (0...86_400).contains(seconds), rate >= 0 else {
      throw ValidationError(
        "--size is a number from 32 to 65535, --seconds one up to 86400, and --rate is not negative")
    }
  }

  @MainActor func work() async throws {
    let devices = try await NetworkDevice.open([output] + (input.map { [$0] } ?? []))
    let (output, input) = (devices[0], devices[devices.count - 1])
    guard size <= output.queues[0].maximumFrameLength else {
      throw ValidationError(
        "--size: \(output.information.name) takes frames of up to \(output.queues[0].maximumFrameLength) bytes")
    }
    let traffic = Traffic(size: size, duration: .seconds(seconds), rate: rate)
    let before = (output.totalStatistics, input.totalStatistics)
    let (sent, times) = try await exchange(traffic, from: output, to: input)
    Output.standard.print("sent \(sent), received \(times.total)")
    Output.standard.print("\(output.information.name): \(output.totalStatistics.since(before.0))")
    if devices.count > 1 {
      Output.standard.print("\(input.information.name): \(input.totalStatistics.since(before.1))")
    }
    Output.standard.print("under way: \(times)")
    if bars { Output.standard.print(times.bars()) }
    for device in devices { try await device.close() }
  }
}

/// All queues of one device send, and all of the other receive until a while after that.
func exchange(
  _ traffic: Traffic, from output: NetworkDevice, to input: NetworkDevice
) async throws -> (sent: Int, times: LatencyHistogram) {
  try await withThrowingTaskGroup(of: LatencyHistogram.self) { receivers in
    for queue in input.queues { receivers.addTask { await queue.run { await Traffic.receive(from: $0) } } }
    let sent = try await withThrowingTaskGroup(of: Int.self) { senders in
      for queue in output.queues {
        senders.addTask { try await queue.run { try await traffic.send(through: $0, of: output.queues.count) } }
      }
      return try await senders.reduce(0, +)
    }
    try await output.queues[0].sleep(for: .milliseconds(100))
    receivers.cancelAll()
    return (sent, try await receivers.reduce(into: LatencyHistogram()) { $0 += $1 })
  }
}
