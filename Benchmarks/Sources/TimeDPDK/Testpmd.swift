import BenchmarkSupport
import ChildProcesses
import Glibc

/// What a port of testpmd has counted, and its rates since it was asked before.
struct PortCounters: Sendable {
  var received = 0
  var sent = 0
  /// Frames that the driver had no buffer for.
  var notSent = 0
  var receivedPerSecond = 0.0
  var sentPerSecond = 0.0

  init(_ text: String) throws {
    func number(_ key: String) throws -> Int {
      guard let range = text.firstRange(of: key) else { throw Self.unreadable(text) }
      let digits = text[range.upperBound...].drop { $0 == " " }.prefix { $0.isNumber }
      guard let number = Int(digits) else { throw Self.unreadable(text) }
      return number
    }
    received = try number("RX-packets:")
    sent = try number("TX-packets:")
    notSent = try number("TX-errors:")
    // testpmd divides by its own monotonic clock, read with the counters: its prompt may be late, this is not.
    receivedPerSecond = Double(try number("Rx-pps:"))
    sentPerSecond = Double(try number("Tx-pps:"))
  }

  private static func unreadable(_ text: String) -> Stop { Stop("no port statistics in: \(text)", status: EX_PROTOCOL) }
}

/// A testpmd with one port, its prompt on a pipe. It polls on one CPU, which its prompt shares.
final class Testpmd {
  let process: ChildProcess
  private let name: String
  private let workspace: Workspace
  private static let prompt = "testpmd> "

  /// Starts it and waits for its prompt; it forwards nothing yet.
  init(name: String, port: String, mode: String, size: Int, cpu: Int, options: Options, in workspace: Workspace)
    async throws
  {
    let memory =
      switch options.pages {
      case .small: ["--no-huge", "-m", "256"]
      case .huge: ["--in-memory", "--single-file-segments", "--socket-mem", "256"]
      }
    let command =
      ["stdbuf", "-oL", "dpdk-testpmd", "--no-pci", "--no-telemetry", "--file-prefix=\(name)"]
      + ["--lcores", "0@\(cpu),1@\(cpu)"] + memory + ["--vdev", port, "--", "-i"]
      // A pool of the size that a device of ours has, as nearly as testpmd allows.
      + ["--total-num-mbufs=2048", "--rxd=\(options.queueSize)", "--txd=\(options.queueSize)"]
      + ["--burst=\(Traffic.batch)", "--txpkts=\(size)", "--forward-mode=\(mode)", "--no-flush-rx"]
    self.name = name
    self.workspace = workspace
    process = try ChildProcess(command)
    workspace.add(process.identifier)
    try await wait(for: "prompt") { Self.prompts($0) > 0 }
  }

  deinit {
    // Not ended by `end`: something has failed.
    process.signal(SIGKILL)
    while !process.hasEnded { usleep(1000) }
    workspace.remove(process.identifier)
  }

  private func wait(for what: String, _ isThere: (String) -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while !isThere(process.output) {
      guard ContinuousClock.now < deadline, !process.hasEnded else {
        throw Stop("testpmd (\(name)): no \(what):\n\(process.output)", status: EX_UNAVAILABLE)
      }
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  private static func prompts(_ output: String) -> Int { output.ranges(of: prompt).count }

  /// Waits until both rings of a driver are in use. What comes before that a vhost port may take and drop.
  func waitForDriver() async throws {
    try await wait(for: "driver") { $0.contains("link state change event") }
  }

  /// Types a command and returns what it printed.
  @discardableResult func command(_ line: String) async throws -> String {
    let before = process.output
    process.type(line)
    let prompts = Self.prompts(before)
    try await wait(for: "answer to \(line)") { Self.prompts($0) > prompts }
    return String(process.output.dropFirst(before.count))
  }

  /// What the port has counted, and its rates since the last call.
  func counters() async throws -> PortCounters { try PortCounters(try await command("show port stats 0")) }

  /// The features of the last driver that the vhost port agreed with.
  func negotiatedFeatures() throws -> UInt64 {
    let key = "negotiated Virtio features: 0x"
    let output = process.output
    guard let range = output.ranges(of: key).last,
      let bits = UInt64(output[range.upperBound...].prefix { $0.isHexDigit }, radix: 16)
    else { throw Stop("no features were negotiated:\n\(output)", status: EX_PROTOCOL) }
    return bits
  }

  func end() async {
    process.type("stop")
    process.type("quit")
    await process.waitForEnd(within: .seconds(20))
    workspace.remove(process.identifier)
  }
}
