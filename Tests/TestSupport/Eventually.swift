/// Waits until a condition holds, with a limit far beyond what a loaded machine needs.
///
/// - Throws: `NeverHappened` when it does not.
public func waitUntil(
  _ what: String, within limit: Duration = .seconds(60), _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !condition() {
    guard ContinuousClock.now < deadline else { throw NeverHappened(what: what) }
    try await Task.sleep(for: .milliseconds(1))
  }
}

/// What was waited for did not come.
public struct NeverHappened: Error {
  /// What it was.
  public let what: String
}
