public import Testing

/// Waits until a condition holds, with a limit far beyond what a loaded machine needs.
///
/// - Throws: what the condition throws, and `NeverHappened`, which is recorded, when it does not come to hold.
public func eventually(
  _ what: Comment, within limit: Duration = .seconds(60), sourceLocation: SourceLocation = #_sourceLocation,
  _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  var looks = 0
  while try await !condition() {
    guard ContinuousClock.now < deadline else {
      Issue.record(what, sourceLocation: sourceLocation)
      throw NeverHappened(what: what)
    }
    looks += 1
    // Quick at first; then the threads of what is waited for get the processor.
    if looks < 100 { await Task.yield() } else { try await Task.sleep(for: .milliseconds(1)) }
  }
}

/// What was waited for did not come.
public struct NeverHappened: Error {
  /// What it was.
  public let what: Comment
}
