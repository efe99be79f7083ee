// The driver of this framework beside DPDK's, on the same device: the vhost-user port of DPDK's testpmd.
//
//     TimeDPDK [--rounds N] [--only NAME,NAME] [--scenarios NAME,NAME] [--sizes N,N] [--plot FILE] …
//
// The device polls on one CPU, the driver on another: DPDK's virtio-user port in a second testpmd, or ours in this process.
// Page size, ring size and features are the same, and checked. All rates are what the device's port counted. The contenders
// take turns, round after round, each on a device started for it, so that what else the machine does, and where memory happens
// to lie, hits all of them alike. A measurement during which one of the two threads had to wait for its CPU is made again.
import BenchmarkSupport
import Foundation
import Glibc
import NetdevDevices

@main struct TimeDPDK {
  let options: Options
  let workspace: Workspace
  var results: [CaseResult] = []
  /// What DPDK's driver, or the first contender, agreed on with the device, beside rings.
  var features: UInt64?

  /// Synchronous: an interrupt is for the workspace, which must have said so before there is a second thread.
  static func main() {
    do {
      let workspace = try Workspace()
      Task.detached {
        await run(in: workspace)
        exit(EXIT_SUCCESS)
      }
      while true { pause() }
    } catch {
      print("TimeDPDK: \(error)")
      exit(EX_CANTCREAT)
    }
  }

  private static func run(in workspace: Workspace) async {
    do {
      defer { workspace.cleanUp() }
      let options = try Options(Array(CommandLine.arguments.dropFirst()))
      try requireTestpmd()
      var run = TimeDPDK(options: options, workspace: workspace)
      run.printConditions()
      try await run.measure()
      try run.plot()
    } catch let stop as Stop {
      print("TimeDPDK: \(stop.message)")
      exit(stop.status)
    } catch {
      print("TimeDPDK: \(error)")
      exit(EXIT_FAILURE)
    }
  }

  init(options: Options, workspace: Workspace) {
    self.options = options
    self.workspace = workspace
  }

  private static func requireTestpmd() throws {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    guard folders.contains(where: { access("\($0)/dpdk-testpmd", X_OK) == 0 }) else {
      throw Stop("dpdk-testpmd is not installed; type:  sudo apt-get install dpdk dpdk-dev", status: EX_UNAVAILABLE)
    }
  }

  /// Case by case, and in each round by round.
  private mutating func measure() async throws {
    for scenario in options.scenarios {
      for size in options.sizes {
        let measured = Case(scenario: scenario, size: size)
        var result = CaseResult(measured: measured, disturbance: options.disturbance, series: series(in: scenario))
        for _ in 0..<options.rounds {
          for position in result.series.indices {
            let (contender, rings) = (result.series[position].contender, result.series[position].rings)
            let measurement = try await contender.measureQuietly(measured, rings, options: options, in: workspace)
            try compareFeatures(measurement, rings, of: contender)
            result.series[position].add(measurement)
          }
        }
        print(result.table + "\n")
        results.append(result)
      }
    }
  }

  /// Who takes part, ring by ring, so that those who are compared with one another follow one another.
  private func series(in scenario: Scenario) -> [Series] {
    options.rings.flatMap { rings in
      options.contenders.compactMap { contender in
        guard rings == options.rings.first || contender == .dpdk || contender == .ours(.burst) else { return nil }
        return contender.title(in: scenario).map { Series(contender, rings, title: $0) }
      }
    }
  }

  private mutating func compareFeatures(_ measurement: Measurement, _ rings: Rings, of contender: Contender) throws {
    let all = AgreedFeatures.ofDataPath(measurement.features)
    guard all & ~Rings.without(all) == rings.features else {
      throw Stop(
        "\(contender.name) was to agree on \(rings.title) rings, and agreed on \(AgreedFeatures.text(all))",
        status: EX_PROTOCOL)
    }
    let found = Rings.without(all)
    guard let features else {
      print("Features of the path of a frame, beside rings: \(AgreedFeatures.text(found)).\n")
      return features = found
    }
    guard features == found else {
      throw Stop(
        """
        \(contender.name) agreed on other features than the others; rates would say nothing.
          \(contender.name): \(AgreedFeatures.text(found))
          the others: \(AgreedFeatures.text(features))
        """, status: EX_PROTOCOL)
    }
  }
}

// MARK: - What it was like

extension TimeDPDK {
  private var conditions: String {
    let pages = options.pages == .huge ? "2 MiB pages" : "4 KiB pages"
    return "rings of \(options.queueSize), \(pages), device on CPU \(options.deviceCPU), driver on CPU "
      + "\(options.driverCPU); medians of \(options.rounds) interleaved rounds of \(rounded(options.seconds)) s"
  }

  private func printConditions() {
    let line = textOfFile("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("model name") }
    let model = line?.split(separator: ":").last.map { $0.drop { $0 == " " } } ?? "unknown CPU"
    print(
      """
      \(model), kernel \(textOfFile("/proc/sys/kernel/osrelease").split(separator: "\n").first ?? "unknown")
      \(conditions).
      macswap: \(options.window) frames go round. All rates as the device's port counted them.

      """)
  }

  private func plot() throws {
    guard let path = options.plot else { return }
    let svg = Plot(results: results, subtitle: conditions).svg
    do {
      try svg.write(toFile: path, atomically: true, encoding: .utf8)
    } catch {
      throw Stop("writing \(path): \(error)", status: EX_CANTCREAT)
    }
  }
}
