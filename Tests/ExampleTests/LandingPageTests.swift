import Foundation
import InProcess
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import PacketFormats
import Testing
import VirtioDevice
import VirtioNet

/// The page with which a module's documentation opens: what the module is, and a first example.
@Suite(.timeLimit(.minutes(1))) struct LandingPageTests {
  private static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")

  /// The modules that a package can depend on; what tests and examples share with the benchmarks lies with them.
  private static let modules: [String] = {
    let manifest = try? String(contentsOf: root.appending(path: "Package.swift"), encoding: .utf8)
    return (manifest ?? "").components(separatedBy: ".library(name: \"").dropFirst()
      .compactMap { $0.components(separatedBy: "\"").first }
      .filter { FileManager.default.fileExists(atPath: root.appending(path: "Sources/\($0)").path) }
  }()

  private static func page(_ module: String) throws -> String {
    try String(
      contentsOf: root.appending(path: "Sources/\(module)/\(module).docc/\(module).md"), encoding: .utf8)
  }

  /// The first example of a page, line by line.
  private static func example(of module: String) throws -> [String] {
    let blocks = try page(module).components(separatedBy: "```swift\n")
    return (blocks.dropFirst().first ?? "").components(separatedBy: "\n```")[0].components(separatedBy: "\n")
  }

  @Test func `there are modules to look at`() { #expect(Self.modules.count == 15) }

  @Test(arguments: modules) func `it has a sentence about the module, and an example`(_ module: String) throws {
    let parts = try Self.page(module).components(separatedBy: "\n\n")
    try #require(parts.count > 3)
    #expect(parts[0] == "# ``\(module)``")
    #expect(parts[1].hasSuffix("."))
    #expect(try !Self.example(of: module).joined().isEmpty)
  }

  // MARK: The examples, as they are printed

  @Test func `InProcess`() async throws {
    // InProcess
    let transport = InProcessTransport(device: VirtioNetDevice(backend: LoopbackBackend()))
    let device = try await NetworkDevice.open(driver: VirtioNetDriver(transport: transport))
    // end
    try await device.close()
    try Self.expectPrinted("InProcess")
  }

  @Test func `LibeventConcurrency`() async throws {
    // LibeventConcurrency
    actor Counter: LoopActor {
      nonisolated let loop: LoopExecutor
      private var count = 0

      init(_ loop: LoopExecutor) { self.loop = loop }

      func countUp(to last: Int) async {
        while count < last, await loop.sleep(for: .milliseconds(1)) { count += 1 }
      }
    }

    await Counter(try LoopExecutor(name: "counter")).countUp(to: 3)
    // end
    try Self.expectPrinted("LibeventConcurrency")
  }

  @Test func `NetdevTesting`() async throws {
    let question = [UInt8](0..<64)
    let serve: @Sendable (isolated NetworkQueue) async throws -> Void = { queue in
      for await packet in queue.packets { try await queue.send(packet) }
    }
    // NetdevTesting
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let server = Task { try await device.run(serve) }
    await driver.deliver(question)
    let answer = try await driver.nextSent()
    // end
    #expect(answer == question)
    server.cancel()
    _ = await server.result
    try Self.expectPrinted("NetdevTesting")
  }

  /// The lines of this file between a comment that names the module and the next `// end`.
  private static func expectPrinted(_ module: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
    func trimmed(_ lines: [String]) -> [String] {
      lines.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }
    let source = trimmed(try String(contentsOfFile: #filePath, encoding: .utf8).components(separatedBy: "\n"))
    let first = try #require(source.firstIndex(of: "// \(module)")) + 1
    let compiled = source[first...].prefix { $0 != "// end" }
    #expect(trimmed(try example(of: module)) == Array(compiled), sourceLocation: sourceLocation)
  }
}
