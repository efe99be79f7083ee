import ChildProcesses
import Foundation
import Glibc
import Synchronization
import Testing

/// DPDK's testpmd with vhost-user ports: the device that nobody here wrote. It polls on one CPU, and talks through a prompt.
final class Testpmd: Sendable {
  /// One vhost-user port.
  struct Port: Sendable {
    var socket: String
    var queues = 1
    /// The port connects to the socket instead of listening on it.
    var isClient = false
  }

  /// What it does with frames.
  enum Mode: String, Sendable, CaseIterable {
    case io, macswap, icmpecho, txonly, rxonly, csum
    case fiveTupleSwap = "5tswap"
  }

  struct NotThere: Error, CustomStringConvertible {
    let description: String
  }

  /// What a port has counted.
  struct Counters: Sendable, Hashable {
    var received = 0
    var sent = 0
  }

  /// CPUs that the instances take in turn: the next one starts beside the present one, not behind it.
  private static let cpus = max(1, ProcessInfo.processInfo.activeProcessorCount)

  static let isAvailable =
    ["/usr/bin", "/usr/local/bin"].contains {
      FileManager.default.isExecutableFile(atPath: "\($0)/dpdk-testpmd")
    } || ProcessInfo.processInfo.environment["CI"] != nil
  static let requirement: Comment = "needs dpdk-testpmd: apt-get install dpdk dpdk-dev"

  let process: ChildProcess
  private let ports: [Port]
  private let prefix: String
  private let isCleanedUp = Atomic<Bool>(false)
  private static let prompt = "testpmd> "
  private static let count = Atomic<Int>(0)

  /// Starts it and, unless told otherwise, waits for its prompt; it forwards from then on.
  init(_ ports: [Port], mode: Mode = .macswap, arguments: [String] = [], waitsForPrompt: Bool = true) async throws {
    self.ports = ports
    let number = Self.count.add(1, ordering: .relaxed).newValue
    let cpu = number % Self.cpus
    prefix = "netdev-\(getpid())-\(number)"
    // A killed one leaves its sockets behind.
    for port in ports where !port.isClient { unsafe unlink(port.socket) }
    let queues = ports.map { $0.queues }.max() ?? 1
    let devices = ports.enumerated().flatMap { position, port in
      [
        "--vdev",
        "net_vhost\(position),iface=\(port.socket),queues=\(port.queues)\(port.isClient ? ",client=1" : "")",
      ]
    }
    process = try ChildProcess(
      ["stdbuf", "-oL", "dpdk-testpmd", "--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]
        + ["--file-prefix=\(prefix)", "--lcores", "0@\(cpu),1@\(cpu)"] + devices
        + ["--", "-i", "--auto-start", "--total-num-mbufs=8192", "--forward-mode=\(mode.rawValue)"]
        + ["--rxq=\(queues)", "--txq=\(queues)"] + arguments)
    if waitsForPrompt { try await waitForPrompts(1) }
  }

  private func waitForPrompts(_ count: Int) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while process.output.components(separatedBy: Self.prompt).count <= count {
      guard ContinuousClock.now < deadline, !process.hasEnded else {
        throw NotThere(description: "testpmd gives no prompt:\n\(process.output)")
      }
      try await Task.sleep(for: .milliseconds(5))
    }
  }

  /// Types a command and returns what it printed.
  @discardableResult func command(_ line: String) async throws -> String {
    let before = process.output
    process.type(line)
    try await waitForPrompts(before.components(separatedBy: Self.prompt).count)
    return String(process.output.dropFirst(before.count))
  }

  /// What a port counted since its start.
  func counters(port: Int) async throws -> Counters {
    let text = try await command("show port stats \(port)")
    func number(after key: String) throws -> Int {
      let rest = try #require(text.components(separatedBy: key).dropFirst().first, "\(text)")
      return try #require(Int(rest.drop(while: { $0 == " " }).prefix(while: { $0.isNumber })), "\(text)")
    }
    return Counters(received: try number(after: "RX-packets:"), sent: try number(after: "TX-packets:"))
  }

  /// What a port counted, once it is as much as was seen on the wire: DPDK counts a burst after it has handed it over, and
  /// its core may be taken away in between. The last figures, whatever they are, after half a minute.
  func counters(port: Int, reaching wanted: Counters) async throws -> Counters {
    let deadline = ContinuousClock.now + .seconds(30)
    while true {
      let counters = try await counters(port: port)
      let isReached = counters.received >= wanted.received && counters.sent >= wanted.sent
      if isReached || ContinuousClock.now >= deadline { return counters }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Ends it as a person would.
  func quit() async {
    process.type("stop")
    process.type("quit")
    await process.waitForEnd(within: .seconds(20))
    cleanUp()
  }

  /// Ends it as a crash would, and waits until it is gone.
  func kill() async {
    process.signal(SIGKILL)
    await process.waitForEnd(within: .seconds(20))
    cleanUp()
  }

  /// Stops it in the middle of whatever it does, and waits until each of its threads stands still.
  func freeze() async throws {
    process.signal(SIGSTOP)
    let tasks = "/proc/\(process.identifier)/task"
    let deadline = ContinuousClock.now + .seconds(20)
    while try !FileManager.default.contentsOfDirectory(atPath: tasks)
      .allSatisfy({ try String(contentsOfFile: "\(tasks)/\($0)/status", encoding: .utf8).contains("State:\tT") })
    {
      guard ContinuousClock.now < deadline else { throw NotThere(description: "testpmd does not stop") }
      try await Task.sleep(for: .milliseconds(1))
    }
  }

  /// Once: the next one may have made the same files anew when this object goes.
  private func cleanUp() {
    guard !isCleanedUp.exchange(true, ordering: .acquiringAndReleasing) else { return }
    for port in ports where !port.isClient { unsafe unlink(port.socket) }
    try? FileManager.default.removeItem(atPath: "/var/run/dpdk/\(prefix)")
  }

  deinit { cleanUp() }
}

/// A path for a socket of one test; a directory of its own would make it too long.
func socketPath() -> String { "/tmp/netdev-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock" }
