import Testing

/// A program whose code is at top level uses a queue from there.
@Suite(.timeLimit(.minutes(5))) struct TopLevelTests {
  @Test func `every call works at top level, with at most one wake-up for 32 packets`() async throws {
    let end = await (try RunningProgram([], program: "TopLevelProgram")).end(with: nil)
    #expect(end.status == 0, "\(end.output)\(end.errors)")
    #expect(end.complaints.isEmpty, "\(end.errors)")
    let words = end.output.split(whereSeparator: \.isWhitespace)
    #expect(words.count == 2 && words.first == "wakeups/packet", "\(end.output)")
    let wakeups = try #require(words.last.flatMap { Double($0) }, "\(end.output)")
    #expect(wakeups * 32 <= 1)
  }
}
