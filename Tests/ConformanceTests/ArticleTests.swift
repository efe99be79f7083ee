import Foundation
import Netdev
import NetdevTesting
import Testing

/// The article for driver writers says what is true.
@Suite(.serialized, .timeLimit(.minutes(2))) struct ArticleTests {
  private static let article: Result<String, any Error> = Result {
    let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
    return try String(
      contentsOf: root.appending(path: "Sources/NetdevTesting/NetdevTesting.docc/WritingADriver.md"), encoding: .utf8)
  }

  private func lines(of text: String) -> [String] {
    text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
  }

  /// The article's code, compiled: the next test compares it with what is printed.
  private func runAsPrinted() async throws {
    // snippet
    let conformance = DriverConformance(lacking: [.severalPairs, .peerHolds, .peerHoldsBuffers]) { queuePairs in
      DriverConformance.Joint(
        driver: ScriptedDriver(mode: .loopback, queuePairs: queuePairs), peer: LoopbackPeer())
    }
    for (check, outcome) in try await conformance.runAll() {
      if case .notApplicable(let lacking) = outcome { print("\(check) needs \(lacking)") }
    }
    // end
  }

  @Test func `the snippet runs: the scripted driver conforms`() async throws { try await runAsPrinted() }

  @Test func `the snippet is printed as it is compiled`() throws {
    let source = lines(of: try String(contentsOf: URL(filePath: #filePath), encoding: .utf8))
    let start = try #require(source.firstIndex(of: "// snippet"))
    let end = try #require(source.firstIndex(of: "// end"))
    let snippet = Array(source[(start + 1)..<end])
    let article = lines(of: try Self.article.get())
    let first = try #require(article.firstIndex(of: snippet[0]))
    #expect(Array(article[first..<first + snippet.count]) == snippet)
  }

  @Test func `the table names every check`() throws {
    let rows = lines(of: try Self.article.get()).filter { $0.hasPrefix("| `") }
    let named = rows.compactMap { $0.split(separator: "`").dropFirst().first.map { String($0) } }
    let checks = DriverConformance.Check.allCases.map { $0.rawValue }
    #expect(named.filter { checks.contains($0) } == checks)
  }
}
