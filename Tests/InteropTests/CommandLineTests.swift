import ChildProcesses
import Foundation
import Glibc
import TestSupport
import Testing

/// The command lines of the page "Switches to try it with", as they stand there.
@Suite(.serialized, .timeLimit(.minutes(5))) struct CommandLineTests {
  /// The blocks of shell commands of the page, in order.
  private static func blocks() throws -> [String] {
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
      .appending(path: "Sources/Netdev/Netdev.docc/SwitchesAtHand.md")
    return try String(contentsOf: page, encoding: .utf8).components(separatedBy: "```sh\n").dropFirst().compactMap {
      $0.components(separatedBy: "\n```").first
    }
  }

  /// The command of a block that begins with `swift run`, with the program beside the test executable instead of a build.
  private static func command(_ block: String) throws -> [String] {
    let words = block.split(separator: " ").map { String($0) }
    try #require(words.prefix(2) == ["swift", "run"])
    let program = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: words[2]).path
    return [program] + words.dropFirst(3)
  }

  @Test(.enabled(if: Testpmd.isAvailable, Testpmd.requirement))
  func `what is sent into one port of testpmd comes out at the other`() async throws {
    let blocks = try Self.blocks()
    try #require(blocks.count == 6)
    let peer = try ChildProcess(["stdbuf", "-oL", "bash", "-c", "exec \(blocks[0])"])
    let deadline = ContinuousClock.now + .seconds(60)
    while !peer.output.contains("testpmd> ") {
      try #require(ContinuousClock.now < deadline && !peer.hasEnded, "\(peer.output)")
      try await Task.sleep(for: .milliseconds(10))
    }
    let generator = try ChildProcess(try Self.command(blocks[1]))
    await generator.waitForEnd(within: .seconds(60))
    let line = generator.output.split(separator: "\n").first { $0.hasPrefix("sent ") } ?? ""
    let counts = line.split { !$0.isNumber }.compactMap { Int($0) }
    #expect(counts.count == 2 && counts[0] > 500 && counts[0] == counts[1], "\(generator.output)")
    peer.type("quit")
    await peer.waitForEnd(within: .seconds(20))
    for number in 0..<2 { try? FileManager.default.removeItem(atPath: "/tmp/netdev-page\(number).sock") }
  }

  fileprivate static let hasOpenVSwitch = unsafe NamespaceThread.isAvailable && access(openVSwitch, X_OK) == 0
  private static let openVSwitch = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"

  @Test(
    .enabled(if: CommandLineTests.hasOpenVSwitch, "needs root and Open vSwitch with DPDK (openvswitch-switch-dpdk)"))
  func `Open vSwitch reaches a device behind its port`() async throws {
    let blocks = try Self.blocks()
    try #require(blocks.count == 6)
    let server = try Self.command(blocks[3]).joined(separator: " ")
    // The blocks as they are, in a network of their own; the program beside them, as in another terminal. Whatever is still there when
    // the shell ends, or is ended, goes with its namespace of processes.
    let script = """
      ip link set lo up
      \(blocks[2])
      \(server) & server=$!
      \(blocks[4])
      kill -INT $server; wait $server; echo "ended by $?"
      daemons=$(cat ovs-vswitchd-dpdk.pid ovsdb-server.pid)
      \(blocks[5])
      for round in $(seq 100); do kill -0 $daemons 2>/dev/null || break; sleep 0.1; done
      kill -0 $daemons 2>/dev/null || echo "the switch has ended"
      """
    let shell = try ChildProcess([
      "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script,
    ])
    await shell.waitForEnd(within: .seconds(120))
    for expected in [" 3 received", "ended by 0", "the switch has ended"] {
      #expect(shell.output.contains(expected), "\(shell.output)")
    }
    try? FileManager.default.removeItem(atPath: "/tmp/netdev-page-ovs.sock")
  }
}
