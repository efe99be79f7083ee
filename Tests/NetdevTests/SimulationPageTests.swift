import Foundation
import Testing

/// The page on simulation names the worlds that there are, and the faults that are planted in them.
@Suite(.timeLimit(.minutes(1))) struct SimulationPageTests {
  private static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..").standardized

  private func text(_ path: String) throws -> String {
    try String(contentsOf: Self.root.appending(path: path), encoding: .utf8)
  }

  /// The texts of the Swift files below a folder.
  private func sources(_ folder: String) throws -> [String] {
    let base = Self.root.appending(path: folder)
    let files = try #require(FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil))
    return try files.compactMap { $0 as? URL }.filter { $0.pathExtension == "swift" }
      .map { try String(contentsOf: $0, encoding: .utf8) }
  }

  /// The names in the first column of the page's table that begins with this cell, in order of the alphabet.
  private func table(_ head: String) throws -> [String] {
    let page = try text("Sources/Netdev/Netdev.docc/Simulation.md")
    let lines = page.split(separator: "\n", omittingEmptySubsequences: false)
    let first = try #require(lines.firstIndex { $0.hasPrefix("| \(head) |") })
    return lines[first...].dropFirst(2).prefix { $0.hasPrefix("|") }
      .flatMap { row in row.split(separator: "|")[0].matches(of: /`([a-z0-9-]+)`/).map { String($0.1) } }.sorted()
  }

  @Test func `the page names every world once`() throws {
    let worlds = try sources("Simulate/Sources/Simulate/Worlds")
    let names = worlds.flatMap { $0.matches(of: /Scenario\(name: "([^"]+)"/).map { String($0.1) } }
    #expect(try table("worlds") == names.sorted())
    #expect(names.count > 40)
  }

  @Test func `every list of worlds is one of those that run`() throws {
    let all = try text("Simulate/Sources/Simulate/Plan.swift")
    for world in try sources("Simulate/Sources/Simulate/Worlds") {
      for list in world.matches(of: /let ([a-zA-Z]+Scenarios): \[Scenario\]/) {
        #expect(all.contains(list.1), "\(list.1) is not among all worlds")
      }
    }
  }

  @Test func `the page names every planted fault once, each is planted, and none is planted in vain`() throws {
    let script = try text("Simulate/simulate.sh")
    let list = try #require(script.firstMatch(of: /for fault in ([^;]+);/)).1
    let listed = list.split { " \\\n".contains($0) }.map { String($0) }.sorted()
    #expect(try table("planted") == listed)
    let planted = try sources("Sources").flatMap { source in
      source.matches(of: /netdev_fault_is_planted\("([^"]+)"\)/).map { String($0.1) }
    }
    // That one is in the sweep itself.
    #expect(Set(planted + ["other-chance"]).sorted() == listed)
  }
}
