import Netdev
import NetdevTesting
import PacketSocket
import TestSupport
import Testing

/// The driver of packet sockets keeps the rules that the others keep.
@Suite(
  .serialized, .quietLoops, .timeLimit(.minutes(5)),
  .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct PacketConformanceTests {
  /// Each driver at one end of a wire in a namespace of its own, at whose other end a packet socket sends its frames back.
  ///
  /// Which pair gets a flow is the kernel's choice, not that of whoever sent it; and the kernel takes a frame as fast as it is
  /// offered one.
  private let conformance = DriverConformance(lacking: [.severalPairs, .peerHoldsBuffers]) { queuePairs in
    let namespace = NamespaceThread()
    // Without IPv6 the kernel sends nothing of its own accord.
    try await namespace.shell(
      """
      echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
      ip link set packet0 up && ip link set packet1 up
      """)
    // What the checks send is for stations that nobody has.
    var options = PacketDriver.Options()
    options.isPromiscuous = true
    let driver = try await namespace.run { [options] in
      try PacketDriver("packet0", queues: queuePairs, options: options)
    }
    let peer = try await namespace.run { try ReflectingPeer(interface: "packet1") }
    return DriverConformance.Joint(driver: driver, peer: peer)
  }

  @Test(arguments: DriverConformance.Check.allCases)
  func `the packet driver conforms`(_ check: DriverConformance.Check) async throws {
    let outcome = try await conformance.run(check)
    #expect(outcome == (check == .severalPairs ? .notApplicable(lacking: [.severalPairs]) : .held))
  }
}
