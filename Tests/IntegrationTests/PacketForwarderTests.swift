import Foundation
import TestSupport
import Testing

/// The kernel in one namespace, the Forwarder between two interfaces of another, the kernel in a third.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .enabled(if: VethWire.isAvailable, "needs root, /dev/net/tun and ethtool"))
struct PacketForwarderTests {
  private struct Line {
    let left: NamespaceThread
    let right: NamespaceThread
    let program: RunningProgram

    init(offloads: VethWire.Offloads = .none, queues: Int = 2) async throws {
      let middle = NamespaceThread()
      let one = try await VethWire(offloads: offloads, right: middle, names: ("left0", "left1"), address: "10.78.0.1")
      let other = try await VethWire(offloads: offloads, right: middle, names: ("right0", "right1"), address: nil)
      left = one.left
      right = other.left
      try await right.shell(
        "ip addr add 10.78.0.2/24 dev right0 && ip -6 addr add fd00:78::2/64 dev right0 nodad")
      program = try await middle.run {
        try RunningProgram(
          ["packet:left1?queues=\(queues)&promiscuous=1", "packet:right1?queues=\(queues)&promiscuous=1"],
          program: "Forwarder")
      }
      try await program.waitForOutput("Ctrl-C ends")
    }
  }

  @Test(.enabled(if: ForwarderTapTests.isIperfAvailable, "needs iperf3"), arguments: ["", "-u -b 50M", "-R", "-6"])
  func `iperf3 measures the wire`(_ options: String) async throws {
    let line = try await Line()
    let address = options == "-6" ? "fd00:78::2" : "10.78.0.2"
    try await line.right.shell(
      """
      timeout 60 iperf3 -s -1 > /dev/null 2>&1 &
      for i in $(seq 600); do ss -ltn | grep -q :5201 && exit 0; sleep 0.1; done; exit 1
      """)
    try await line.left.shell(
      """
      timeout 50 iperf3 -c \(address) \(options) -P 4 -t 2 -J > /tmp/netdev-iperf-$$
      grep -q '"error"' /tmp/netdev-iperf-$$; status=$?
      bytes=$(grep '"bytes":' /tmp/netdev-iperf-$$ | tail -1 | tr -dc 0-9); rm /tmp/netdev-iperf-$$
      test $status = 1 && test "$bytes" -gt 1000000
      """)
    let end = await line.program.end(with: SIGINT)
    #expect(end.status == 0, "\(end)")
    // A busy machine may let the ring run full, which the streams make good.
    #expect(end.complaints.allSatisfy { $0.contains("reason=noReceiveBuffer") }, "\(end)")
  }

  @Test(.enabled(if: ForwarderTapTests.isIperfAvailable, "needs iperf3"))
  func `frames that stand for several are dropped and counted`() async throws {
    let line = try await Line(offloads: .all)
    try await line.right.shell(
      """
      timeout 20 iperf3 -s -1 > /dev/null 2>&1 &
      for i in $(seq 600); do ss -ltn | grep -q :5201 && exit 0; sleep 0.1; done; exit 1
      """)
    try await line.left.shell("timeout 10 iperf3 -c 10.78.0.2 -t 1 > /dev/null 2>&1; true")
    let end = await line.program.end(with: SIGINT)
    #expect(end.status == 0, "\(end)")
    let dropped = end.output.split(separator: "\n").first { $0.hasPrefix("packet left1 -> packet right1: ") }
    #expect(
      dropped?.contains(" of several frames") == true && dropped?.contains(", 0 of several frames") == false, "\(end)")
  }
}
