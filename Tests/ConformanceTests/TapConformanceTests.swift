import InProcess
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import VirtioDevice
import VirtioNet

/// The virtio driver keeps its rules too when its device is an interface of the kernel.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct TapConformanceTests {
  /// What stands behind the device, and where it is served.
  struct Interface: Sendable, CustomTestStringConvertible {
    let isLayer3: Bool
    let placement: InProcessTransport.Placement
    let testDescription: String

    static let all = [
      Interface(isLayer3: false, placement: .inline, testDescription: "TAP"),
      Interface(isLayer3: false, placement: .ownLoop(), testDescription: "TAP, own loop"),
      Interface(isLayer3: true, placement: .inline, testDescription: "TUN"),
      Interface(isLayer3: true, placement: .ownLoop(), testDescription: "TUN, own loop"),
    ]

    /// Each device on an interface in a namespace of its own, whose frames or packets a packet socket sends back.
    var conformance: DriverConformance {
      // The device makes the Ethernet header of what an interface of layer 3 sends, from the router's station to its own: where the
      // two are one, a frame comes back as it was sent. Only what has a datagram in it passes.
      let station = isLayer3 ? MACAddress(0x02, 0x00, 0x5E, 0x00, 0x00, 0x01) : nil
      var conformance = DriverConformance(
        lacking: [.peerHoldsBuffers], minimumFrameLength: isLayer3 ? 46 : 14
      ) { pairs in
        let namespace = NamespaceThread()
        // Without IPv6 the kernel sends nothing of its own accord; what nobody reads yet waits rather than being dropped.
        try await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        let backend = try await namespace.run { [isLayer3] in
          try TapBackend("wire0", queues: pairs, bringUp: false, isLayer3: isLayer3)
        }
        try await namespace.shell("ip link set wire0 txqueuelen 8192 && ip link set wire0 up")
        var configuration = VirtioNetDevice.Configuration()
        configuration.macAddress = station
        let device = VirtioNetDevice(backend: backend, configuration: configuration)
        let driver = VirtioNetDriver(transport: InProcessTransport(device: device, placement: placement))
        let peer = try await namespace.run { try ReflectingPeer(interface: "wire0") }
        return DriverConformance.Joint(driver: driver, peer: peer)
      }
      if let station { conformance.stations = (station, station) }
      return conformance
    }
  }

  @Test(arguments: Interface.all, DriverConformance.Check.allCases)
  func `a device that is an interface conforms`(_ interface: Interface, _ check: DriverConformance.Check) async throws {
    #expect(try await interface.conformance.run(check) == .held)
  }
}
