import Foundation
import Testing

/// The command lines of the page "Switches to try it with", as they stand there.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct CommandLineTests {
  /// The blocks of shell commands of the page, in order.
  private static func blocks() throws -> [String] {
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
      .appending(path: "Sources/Netdev/Netdev.docc/SwitchesAtHand.md")
    return try String(contentsOf: page, encoding: .utf8).components(separatedBy: "```sh\n").dropFirst().compactMap {
      $0.components(separatedBy: "\n```").first
    }
  }

  @Test func `what is sent into one port of testpmd comes out at the other`() async throws {
    let blocks = try Self.blocks()
    try #require(blocks.count == 2)
    let peer = try ChildProcess(["stdbuf", "-oL", "bash", "-c", "exec \(blocks[0])"])
    let deadline = ContinuousClock.now + .seconds(60)
    while !peer.output.contains("testpmd> ") {
      try #require(ContinuousClock.now < deadline && !peer.hasEnded, "\(peer.output)")
      try await Task.sleep(for: .milliseconds(10))
    }
    // The program beside the test executable, instead of a build.
    let words = blocks[1].split(separator: " ").map { String($0) }
    #expect(words.prefix(2) == ["swift", "run"])
    let program = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: words[2]).path
    let generator = try ChildProcess([program] + words.dropFirst(3))
    await generator.waitForEnd(within: .seconds(60))
    let line = generator.output.split(separator: "\n").first { $0.hasPrefix("sent ") } ?? ""
    let counts = line.split { !$0.isNumber }.compactMap { Int($0) }
    #expect(counts.count == 2 && counts[0] > 500 && counts[0] == counts[1], "\(generator.output)")
    peer.type("quit")
    await peer.waitForEnd(within: .seconds(20))
    for number in 0..<2 { try? FileManager.default.removeItem(atPath: "/tmp/netdev-page\(number).sock") }
  }
}
