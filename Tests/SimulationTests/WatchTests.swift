import Glibc
import NetdevDevices
import NetdevTesting
import Testing

/// What is said of a world from outside, while it cannot say anything itself.
@Suite struct WatchTests {
  private static func lines(_ result: ExitTest.Result) -> [Substring] {
    String(decoding: result.standardErrorContent, as: UTF8.self).split(separator: "\n")
      .filter { $0.hasPrefix("simulation: ") }
  }

  @Test func `a program that does not come back is told, once a step`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      var simulation = Simulation(seed: 5)
      simulation.limits.stepMilliseconds = 200
      try await simulation.run { _ in
        await Task.yield()
        usleep(1_000_000)
      }
    }
    #expect(Self.lines(result) == ["simulation: seed 5, step 3: the program has not come back for 200 ms"])
  }

  @Test func `a world that waits for other threads is not one that does not come back`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      var simulation = Simulation(seed: 5)
      simulation.limits.stepMilliseconds = 100
      _ = await simulation.observe { _ in await Program.end() }
    }
    #expect(Self.lines(result) == [])
  }

  @Test func `a trap says the seed and the step`() async throws {
    let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await Simulation(seed: 7).run { world in
        await Task.yield()
        precondition(world.choose(below: 1) == 1, "it must be")
      }
    }
    #expect(Self.lines(result) == ["simulation: seed 7, step 3: trapped"])
  }

  @Test func `so does who calls himself without end, and who aborts`() async throws {
    let overflow = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await Simulation(seed: 7).run { world in
        await Task.yield()
        world.note("\(Program.depth(world, 1))")
      }
    }
    #expect(Self.lines(overflow) == ["simulation: seed 7, step 3: trapped"])
    let abortion = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await Simulation(seed: 7).run { _ in Program.end(by: SIGABRT) }
    }
    #expect(Self.lines(abortion) == ["simulation: seed 7, step 1: trapped"])
  }

  @Test func `a world that is over opens nothing, and what is found in it is said`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      let world = try await Simulation(seed: 7).run { $0 }
      world.find("something")
      await #expect(throws: NetworkDeviceError.self) { try await world.open("loopback:") }
    }
    #expect(Self.lines(result).count == 1)
    let line = Self.lines(result).first ?? ""
    #expect(line.hasPrefix("simulation: seed 7 is over, and ") && line.hasSuffix(" says: something"), "\(line)")
  }

  @Test func `a trap outside of a world says nothing, and signals are as they were`() async throws {
    let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let before = Program.flags
      try await Simulation(seed: 7).run { _ in }
      guard before == Program.flags else { exit(0) }
      abort()
    }
    #expect(Self.lines(result) == [])
  }

  private enum Program {
    static var flags: CInt {
      var action = sigaction()
      unsafe sigaction(SIGSEGV, nil, &action)
      // Without what the C library adds to what it sets (SA_RESTORER).
      return action.sa_flags & ~0x0400_0000
    }

    static func end(by signal: CInt) { if signal == SIGABRT { abort() } }

    static func end() async { await withCheckedContinuation { kept.continuation = $0 } }

    static func depth(_ world: SimulatedWorld, _ depth: Int) -> Int {
      world.choose(below: 2) == 2 ? depth : 1 + Self.depth(world, depth + 1)
    }

    private static let kept = Holder()

    private final class Holder: @unchecked Sendable {
      // Proof: the tasks of one world, one after the other.
      var continuation: CheckedContinuation<Void, Never>?
    }
  }
}
