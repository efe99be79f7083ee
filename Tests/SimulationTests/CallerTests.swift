import NetdevTesting
import Testing

/// What a world's program has of whoever runs it.
@Suite struct CallerTests {
  @TaskLocal static var word = "none"

  @Test func `the body has its caller's task-local values, and so have the tasks that it begins`() async throws {
    let words = try await Self.$word.withValue("set") {
      try await Simulation(seed: 1).run { _ in
        let own = Self.word
        await Task.yield()
        let child = await Task { Self.word }.value
        return [own, child]
      }
    }
    #expect(words == ["set", "set"])
  }

  @Test func `an expectation in a world is the test's own`() async {
    await withKnownIssue {
      try await Simulation(seed: 1).run { _ in
        await Task.yield()
        #expect(Bool(false), "as it must")
      }
    }
  }

  @Test @MainActor func `the body is on no actor of its caller's`() async throws {
    try await Simulation(seed: 1).run { _ in
      await Task.yield()
      _ = await Task { 1 }.value
    }
  }
}
