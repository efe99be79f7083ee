import BenchmarkSupport
import ChildProcesses
import Glibc

/// One rate.
struct Measurement: Sendable {
  /// Frames a second.
  let rate: Double
  /// Share of the time that one of the two polling threads waited for its CPU.
  let waiting: Double
  /// Frames fell out of the loop, for want of receive buffers.
  let lostFrames: Bool
  /// What driver and device agreed on.
  let features: UInt64
}

extension Contender {
  /// Starts a device and this driver, lets them run in, and takes the rate.
  func measure(
    _ measured: Case, _ rings: Rings, options: Options, in workspace: Workspace
  ) async throws -> Measurement {
    let socket = workspace.path("vhost.sock")
    unlink(socket)
    let device = try await Testpmd(
      name: "device", port: "net_vhost0,iface=\(socket),queues=1", mode: measured.scenario.deviceMode,
      size: measured.size, cpu: options.deviceCPU, options: options, in: workspace)
    try await device.command("start")
    let driver = try await drive(measured, rings, socket: socket, options: options, in: workspace)
    try await device.waitForDriver()
    try await driver.begin()
    try await Task.sleep(for: .seconds(options.warmUp))
    let queues = [RunQueue(of: device.process.identifier), RunQueue(of: driver.process)]
    let before = try await device.counters()
    try await Task.sleep(for: .seconds(options.seconds))
    let after = try await device.counters()
    let waiting = queues.map { $0.waitingShare }.max() ?? 0
    let features = try device.negotiatedFeatures()
    try await driver.end()
    await device.end()
    return Measurement(
      rate: measured.scenario.rate(after), waiting: waiting,
      lostFrames: measured.scenario == .macswap && after.notSent != before.notSent, features: features)
  }

  private func drive(
    _ measured: Case, _ rings: Rings, socket: String, options: Options, in workspace: Workspace
  ) async throws -> any Driver {
    switch self {
    case .dpdk: return try await DPDKDriver(measured, rings, socket: socket, options: options, in: workspace)
    case .ours(let way): return try await OurDriver(way, measured, rings, socket: socket, options: options)
    }
  }

  /// Measures again while somebody else has used the CPUs; what was disturbed least counts in the end.
  func measureQuietly(
    _ measured: Case, _ rings: Rings, options: Options, in workspace: Workspace
  ) async throws -> Measurement {
    var best: Measurement?
    for _ in 0...options.repetitions {
      let measurement = try await measure(measured, rings, options: options, in: workspace)
      if options.isVerbose {
        let waiting = rounded(measurement.waiting, 1000)
        print("\(measured.title), \(rings.title), \(name): \(measurement.rate) a second, \(waiting) waiting")
      }
      if best.map({ measurement.waiting < $0.waiting }) ?? true { best = measurement }
      if measurement.waiting <= options.disturbance { break }
    }
    guard let best else { throw Stop("nothing was measured", status: EX_SOFTWARE) }
    return best
  }
}

/// What must be the same for rates to be compared: what decides about the path of a frame.
enum AgreedFeatures {
  /// Names of bits that have to do with the control plane alone.
  private static let others: Set<Int> = [3, 5, 16, 17, 18, 19, 21, 22, 23, 26, 30, 63]

  static func ofDataPath(_ features: UInt64) -> UInt64 { others.reduce(features) { $0 & ~(1 << UInt64($1)) } }

  static func text(_ features: UInt64) -> String {
    let names = [
      0: "CSUM", 1: "GUEST_CSUM", 15: "MRG_RXBUF", 28: "INDIRECT_DESC", 29: "EVENT_IDX", 32: "VERSION_1",
      34: "RING_PACKED",
      35: "IN_ORDER",
    ]
    let bits = (0..<64).filter { features >> UInt64($0) & 1 != 0 }
    return bits.map { names[$0] ?? "bit \($0)" }.joined(separator: ", ")
  }
}
