internal import LibeventConcurrency
public import Testing

/// No loop that a test makes, itself or by what it opens, may turn for nothing: a spin is a failure of whatever test it is in.
public struct QuietLoops: TestTrait, SuiteTrait, TestScoping {
  /// A look after the last work, and a wake-up for nothing now and then; a loop that spins has thousands in a moment.
  private static let mostIdleTurns: UInt64 = 1000

  /// For each test of the suites within, too.
  public let isRecursive = true

  /// Runs a test, and counts.
  @concurrent public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
  ) async throws {
    let ledger = LoopLedger()
    try await LoopLedger.$current.withValue(ledger) { try await function() }
    let turns = ledger.idleTurns
    #expect(turns <= Self.mostIdleTurns, "a loop turned for nothing", sourceLocation: test.sourceLocation)
  }
}

extension Trait where Self == QuietLoops {
  /// No loop that the test makes turns for nothing.
  public static var quietLoops: Self { Self() }
}
