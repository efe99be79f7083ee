import ArgumentParser
import ExampleSupport
import Foundation
import Netdev
import NetdevDevices
import NetdevProgram
import PacketFormats

/// Keeps the last packets of a device, counts what they are and who sends them, and writes them to a file at the end.
@main struct CapturePackets: Program {
  static let configuration = CommandConfiguration(
    commandName: "CapturePackets", abstract: "Keeps the last packets of a device in a capture file.",
    discussion: "CapturePackets packet:eth0?promiscuous=1 --file eth0.pcap")

  @Argument(help: "The device: packet:INTERFACE?promiscuous=1, tap:NAME, …") var device: String
  @Option(help: "How many packets to keep.") var keep = 1000
  @Option(help: "The file to write at the end.") var file = "capture.pcap"

  @MainActor static func main() async { await ExampleSupport.run(Self.self) }

  @MainActor func work() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 1
    // The packets themselves are kept, and those that the counting consumers are behind.
    configuration.keptPackets = keep + 512
    let device = try await NetworkDevice.open(device, configuration: configuration)
    Output.standard.print("\(device.information.name): keeping the last \(keep) packets; Ctrl-C ends")
    try await device.run { try await capture($0, keep: keep, file: file) }
  }
}

/// Three consumers, each of which has every packet, until the queue ends or the task is cancelled.
func capture(_ queue: isolated NetworkQueue, keep: Int, file: String) async throws {
  let copies = queue.broadcast(to: 3)
  async let types = tally(copies[0]) { "\($0.etherType)" }
  async let talkers = tally(copies[1]) { "\($0.source)" }
  var kept: [(packet: Packet, time: Duration)] = []
  var next = 0
  for await packet in copies[2] {
    let record = (packet, Duration.seconds(Date().timeIntervalSince1970))
    if kept.count < keep { kept.append(record) } else { kept[next] = record }
    next = (next + 1) % max(1, keep)
  }
  var capture = CaptureFile()
  // The oldest first: the next one to be replaced.
  for record in kept.suffix(from: min(next, kept.count)) + kept.prefix(next) where capture.count < kept.count {
    record.packet.withBytes { capture.append($0, at: record.time) }
  }
  try Data(capture.bytes).write(to: URL(filePath: file))
  Output.standard.print("\(capture.count) packets in \(file); \(queue.statistics)")
  for counts in await [types, talkers] {
    for (name, count) in counts.sorted(by: { $0.value > $1.value }).prefix(10) {
      Output.standard.print("\(count)\t\(name)")
    }
  }
}

/// How many packets have what `name` says of their header.
func tally(_ packets: BroadcastPackets, by name: @Sendable (EthernetHeader) -> String) async -> [String: Int] {
  var counts: [String: Int] = [:]
  for await packet in packets {
    if let header = packet.withBytes({ try? EthernetHeader(decoding: $0) }) { counts[name(header), default: 0] += 1 }
  }
  return counts
}
