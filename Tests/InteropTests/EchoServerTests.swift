import ChildProcesses
import Foundation
import NetdevDevices
import Testing

/// The example as it is, behind a switch: our driver on one port of testpmd, the echo server on the other.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct EchoServerTests {
  /// Beside the test executable, where the package manager puts executables.
  static let path = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "EchoServer")
    .path

  @Test func `the echo server answers pings through a switch`() async throws {
    let (near, far) = (socketPath(), socketPath())
    let peer = try await Testpmd([.init(socket: near), .init(socket: far)], mode: .io)
    let server = try ChildProcess([
      "stdbuf", "-oL", Self.path, "vhost-user:\(far)?mac=02:00:00:00:00:01", "--address", "10.0.0.2/24",
    ])
    let deadline = ContinuousClock.now + .seconds(60)
    while !server.output.contains("try:  ping 10.0.0.2") {
      try #require(ContinuousClock.now < deadline && !server.hasEnded, "\(server.output)")
      try await Task.sleep(for: .milliseconds(10))
    }
    let device = try await open("vhost-user:\(near)")
    try await device.run { queue in
      for number in 0..<500 {
        let request = Ping.request(number)
        try await queue.submit(Packet(copying: request, in: queue.pool))
        var iterator = queue.packets.makeAsyncIterator()
        let answer = try #require(await iterator.next()).array
        guard answer == Ping.answer(to: request) else {
          Issue.record("the answer \(number) differs: \(answer)")
          return
        }
      }
    }
    server.signal(SIGINT)
    await server.waitForEnd(within: .seconds(20))
    #expect(server.output.contains("queue 0: 500 received, 500 sent, 0 failed"), "\(server.output)")
    await peer.quit()
  }
}
