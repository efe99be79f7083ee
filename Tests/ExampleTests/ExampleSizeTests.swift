import Foundation
import Testing

/// An example is there to be read: what it may not need, and how long it may be.
@Suite struct ExampleSizeTests {
  private static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")

  /// The lines of an example, in all of its files: those with code on them. `make lint` keeps them formatted.
  private static func code(of example: String) throws -> [String] {
    let folder = root.appending(path: "Examples/\(example)")
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".swift") }
    return try files.sorted().flatMap { file in
      try String(contentsOf: folder.appending(path: file), encoding: .utf8).split(separator: "\n")
        .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty && !$0.hasPrefix("//") }
    }
  }

  /// What the same programs took when all of it was written by hand, against a library that had nothing of what they need: formatted and
  /// counted in the same way. Neither count has what programs share, arguments and printing among it: `ExampleSupport`.
  private static let byHand = [
    "CapturePackets": 93, "DHCPServer": 211, "Router": 137, "Switch": 98, "TrafficGenerator": 186,
  ]
  private static let names = byHand.keys.sorted()
  /// What a program of this kind needs none of.
  private static let words = [
    "unsafe", "Pointer", "Mutex", "Lock", "Atomic", "Checksum", "checksum", "@unchecked", "Dispatch",
  ]

  @Test(arguments: names) func `it has at most two thirds of the lines that it took by hand`(
    _ example: String
  ) throws {
    let lines = try Self.code(of: example).count
    let before = try #require(Self.byHand[example])
    #expect(lines * 3 <= before * 2, "\(lines) lines, \(before) by hand")
  }

  @Test(arguments: names + ["KeyValueStore"])
  func `it has no pointer, no lock, no atomic, and computes no checksum`(
    _ example: String
  ) throws {
    let code = try Self.code(of: example)
    #expect(code.count > 20)
    for line in code {
      for word in Self.words { #expect(!line.contains(word), "\(line)") }
    }
  }
}
