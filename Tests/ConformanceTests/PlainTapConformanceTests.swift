import Foundation
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// The driver that is not virtio keeps the same rules.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct PlainTapConformanceTests {
  /// Each driver on an interface in a namespace of its own, whose frames a packet socket sends back.
  private let conformance = DriverConformance(lacking: [.peerHoldsBuffers]) { queuePairs in
    let namespace = NamespaceThread()
    let driver = try await namespace.run { try PlainTapDriver(interface: "plain0", queues: queuePairs) }
    // Without IPv6 the kernel sends nothing of its own accord; frames that nobody reads yet wait rather than being dropped.
    try await namespace.shell(
      """
      echo 1 > /proc/sys/net/ipv6/conf/plain0/disable_ipv6 && ip link set plain0 txqueuelen 8192 && \
      ip link set plain0 up
      """)
    let peer = try await namespace.run { try ReflectingPeer(interface: "plain0") }
    return DriverConformance.Joint(driver: driver, peer: peer)
  }

  @Test(arguments: DriverConformance.Check.allCases)
  func `the plain TAP driver conforms`(_ check: DriverConformance.Check) async throws {
    // Its buffers are released when the kernel has copied them: none can be held, and no check needs that it can.
    #expect(try await conformance.run(check) == .held)
  }

  @Test func `it imports the public interface only`() throws {
    let source = try String(
      contentsOf: URL(filePath: #filePath).deletingLastPathComponent().appending(path: "PlainTapDriver.swift"),
      encoding: .utf8)
    let imports = source.split(separator: "\n").filter { $0.contains("import ") && !$0.hasPrefix("//") }
    #expect(
      imports == [
        "import Glibc", "import LibeventConcurrency", "import Netdev", "import PacketFormats", "import Synchronization",
      ])
    #expect(source.split(separator: "\n", omittingEmptySubsequences: false).count <= 320)
  }
}
