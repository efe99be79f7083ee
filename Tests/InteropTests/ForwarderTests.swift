import ChildProcesses
import Foundation
import NetdevDevices
import TestSupport
import Testing

/// The Forwarder as it is, with a vhost-user port at one end or at both.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct ForwarderTests {
  static let path = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "Forwarder")
    .path

  private static func start(_ urls: [String]) throws -> ChildProcess {
    try ChildProcess(["stdbuf", "-oL", path] + urls)
  }

  private static func wait(for text: String, from program: ChildProcess) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while !program.output.contains(text) {
      try #require(ContinuousClock.now < deadline && !program.hasEnded, "\(program.output)")
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  private static func end(_ program: ChildProcess, sourceLocation: SourceLocation = #_sourceLocation) async {
    program.signal(SIGINT)
    await program.waitForEnd(within: .seconds(30))
    #expect(program.output.contains("frames; dropped: 0 too long"), "\(program.output)", sourceLocation: sourceLocation)
    #expect(!program.output.contains("Forwarder: "), "\(program.output)", sourceLocation: sourceLocation)
  }

  @Test func `between two switches every frame arrives, byte for byte, and comes back`() async throws {
    let (near, middle, far) = (socketPath(), socketPath(), socketPath())
    let first = try await Testpmd([.init(socket: near), .init(socket: middle)], mode: .io)
    let second = try await Testpmd([.init(socket: far)], mode: .macswap)
    let program = try Self.start(["vhost-user:\(middle)", "vhost-user:\(far)"])
    try await Self.wait(for: "Ctrl-C ends", from: program)
    let device = try await open("vhost-user:\(near)")
    try await device.run { queue in try await exchange(on: queue, total: 5000, burst: 32, isSwapped: true) }
    let all = Testpmd.Counters(received: 5000, sent: 5000)
    #expect(try await second.counters(port: 0, reaching: all) == all)
    await Self.end(program)
    #expect(program.output.contains("vhost-user:\(middle) -> vhost-user:\(far): 5000 frames"), "\(program.output)")
    #expect(program.output.contains("vhost-user:\(far) -> vhost-user:\(middle): 5000 frames"), "\(program.output)")
    #expect(program.output.components(separatedBy: "copied: 0").count == 3, "\(program.output)")
    await first.quit()
    await second.quit()
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
  func `the kernel behind a TAP interface pings a switch that answers`() async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)], mode: .icmpecho)
    let namespace = NamespaceThread()
    let program = try await namespace.run { try Self.start(["tap:tap0", "vhost-user:\(socket)"]) }
    try await Self.wait(for: "Ctrl-C ends", from: program)
    try await namespace.shell("ip addr add 10.0.0.1/24 dev tap0")
    try await namespace.shell("ping -q -c 200 -i 0.005 -W 10 10.0.0.9 > /dev/null")
    try await namespace.shell("ping -q -c 20 -i 0.01 -W 10 -s 1400 10.0.0.9 > /dev/null")
    // The answers to 220 pings and to one question for the address.
    let counters = try await peer.counters(port: 0, reaching: .init(received: 221, sent: 221))
    #expect(counters.sent >= 221, "\(counters)")
    await Self.end(program)
    await peer.quit()
  }
}
