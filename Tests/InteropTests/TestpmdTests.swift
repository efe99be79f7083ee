import NetdevDevices
import Testing

/// Our driver on a port of DPDK's testpmd.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct TestpmdTests {
  @Test func `frames go both ways, byte for byte`() async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)])
    let device = try await NetworkDevice.open("vhost-user:\(socket)")
    try await device.run { queue in
      try await exchange(on: queue, total: 1000, burst: 16, isSwapped: true)
    }
    await peer.quit()
  }
}
