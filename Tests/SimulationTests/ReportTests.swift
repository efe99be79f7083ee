import CNetdevSystem
import NetdevDevices
import NetdevTesting
import Testing

/// How a run tells what was wrong.
@Suite struct ReportTests {
  private struct Thrown: Error {}

  @Test func `what the body threw comes before what it left behind`() async throws {
    let kept = Kept()
    let report = await Simulation(seed: 5).observe { world in
      kept.device = try await world.open("loopback:")
      world.mayHappen("something") {}
      for _ in 0..<10_000 { await Task.yield() }
      throw Thrown()
    }
    let lines = "\(report)".split(separator: "\n")
    #expect(lines[0] == "seed 5: the body threw: Thrown()")
    #expect(lines[1] == "what happened: something")
    #expect(lines[2].hasPrefix("found: the loop 'netdev-control' is still held at the end"), "\(lines[2])")
    #expect(lines[2].hasSuffix("close its device, let go of it and of its queues, and end the tasks that hold them"))
    let failure = await #expect(throws: Simulation.Failure.self) {
      try await Simulation(seed: 5).run { world in
        kept.device = try await world.open("loopback:")
        throw Thrown()
      }
    }
    #expect(failure.map { "\($0)".hasPrefix("seed 5: the body threw: Thrown()\nfound: the loop") } == true)
  }

  @Test func `without anything else the finding is the first line`() async {
    let report = await Simulation(seed: 5).observe { world in world.find("wrong") }
    #expect("\(report)".hasPrefix("seed 5: wrong\nthe last of 1 steps"), "\(report)")
  }

  @Test func `a world in a world says so`() async throws {
    let report = await Simulation(seed: 1).observe { _ in try await Simulation(seed: 2).run { _ in } }
    #expect(report.findings.isEmpty)
    let inner = try #require(report.error as? Simulation.Failure)
    #expect(inner.report.findings.first?.hasPrefix("a world in a world") == true, "\(inner)")
  }

  @Test(.enabled(if: !netdev_fault_is_built(), "a build with the trait Testing does refuse calls"))
  func `a rate of refusals that does nothing is found`() async {
    var simulation = Simulation(seed: 1)
    simulation.refusalRate = 10
    let report = await simulation.observe { _ in }
    #expect(report.findings.first?.hasPrefix("refusalRate does nothing") == true)
  }

  @Test func `a limit below zero is none`() async {
    var simulation = Simulation(seed: 1)
    simulation.limits.arrivalMilliseconds = -1
    let report = await simulation.observe { _ in
      await withCheckedContinuation { Kept.continuation.value = $0 }
    }
    #expect(report.findings.first?.hasPrefix("a wait for ever") == true)
  }

  private final class Kept: @unchecked Sendable {
    // Proof: the tasks of one world, one after the other.
    var device: NetworkDevice?
    var value: CheckedContinuation<Void, Never>?
    static let continuation = Kept()
  }
}
