import Glibc
import NetdevDevices
import NetdevTesting
import Testing

// snippet
/// Runs a program in many worlds.
struct Sweep {
  /// How much the program does: frames, requests, callers.
  var size = 8
  let program: @Sendable (SimulatedWorld, _ size: Int) async throws -> Void

  init(_ program: @escaping @Sendable (SimulatedWorld, _ size: Int) async throws -> Void) { self.program = program }

  func observe(_ seed: UInt64, _ size: Int) async -> Simulation.Report {
    var simulation = Simulation(seed: seed)
    simulation.disturbances = [.cancellation, .emptyPool]
    // A second for what another thread may bring is long where thousands of runs end with a wait for ever.
    simulation.limits.arrivalMilliseconds = 20
    return await simulation.observe { [program] world in try await program(world, size) }
  }

  /// Who was disturbed may throw; who was not may not.
  func isFine(_ report: Simulation.Report) -> Bool {
    report.findings.isEmpty && (report.error == nil || !report.isCalm)
  }

  /// The smallest run near the first one that finds something; nil when none does. That first one is told as it is: one of the smaller
  /// ones may end in a trap.
  func run(_ seeds: Range<UInt64>, tell: (String) -> Void) async -> (size: Int, report: Simulation.Report)? {
    for seed in seeds {
      var least = (size: size, report: await observe(seed, size))
      if isFine(least.report) { continue }
      tell("not made smaller yet: size \(size), \(least.report)")
      for size in 1...size {
        for other in seed..<seed + 30 {
          let report = await observe(other, size)
          if !isFine(report), report.steps < least.report.steps { least = (size, report) }
        }
      }
      return least
    }
    return nil
  }
}
// end

/// The page's sweep finds something and makes it smaller.
@Suite struct SweepExampleTests {
  @Test func `a sweep ends with the smallest run that it knows`() async throws {
    let sweep = Sweep { world, size in
      let device = try await world.open("loopback:?lossless=1")
      for number in 0..<size {
        let packet = try Packet(copying: [UInt8](repeating: UInt8(number), count: 64), in: device.pool)
        try await device.queues[0].send(packet)
        // What is wrong with it shows from the second frame on, sometimes.
        if number > 0, world.chance(oneIn: 3) { world.find("wrong") }
      }
      try await device.close()
    }
    var told: [String] = []
    let found = try #require(await sweep.run(0..<100) { told.append($0) })
    #expect(told.count == 1 && told[0].hasPrefix("not made smaller yet: size 8, seed "), "\(told)")
    #expect(found.size == 2 && found.report.findings == ["wrong"], "\(found)")
    let again = await sweep.observe(found.report.seed, found.size)
    #expect(again.fingerprint == found.report.fingerprint)
  }

  @Test func `a sweep of a sound program ends without a finding`() async {
    let sweep = Sweep { world, size in
      for _ in 0..<size { try await Task.sleep(for: .milliseconds(world.choose(below: 10))) }
    }
    #expect(await sweep.run(0..<50) { Issue.record("\($0)") } == nil)
  }

  @Test func `a trap while a run is made smaller does not take what was found with it`() async throws {
    let result = try await #require(processExitsWith: .failure, observing: [\.standardOutputContent]) {
      let sweep = Sweep { world, size in
        await Task.yield()
        precondition(size == 8, "smaller programs have another fault")
        world.find("wrong")
      }
      _ = await sweep.run(0..<100) {
        print($0)
        fflush(nil)
      }
    }
    let output = String(decoding: result.standardOutputContent, as: UTF8.self)
    #expect(output.contains("not made smaller yet: size 8, seed 0: "), "\(output)")
  }
}
