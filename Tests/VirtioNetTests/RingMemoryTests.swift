import NetdevTesting
import Testing
import VirtioDevice
import VirtioNet

@testable import InProcess

/// Memory of an in-process device lives as long as anybody may use it.
@Suite struct RingMemoryTests {
  @Test func `rings outlive a device that is shut down before a queue is told, whose loop was held`() async throws {
    let transport = InProcessTransport(device: VirtioNetDevice(backend: LoopbackBackend()))
    var rings: VirtioMemory? = try transport.makeRingMemory(bytes: 4096)
    _ = try await transport.share(try #require(rings))
    weak let memory = rings?.owner
    #expect(memory != nil)
    await transport.shutDown()
    // What the queue's pair of rings holds.
    #expect(memory != nil)
    withExtendedLifetime(rings) {}
    rings = nil
    #expect(memory == nil)
  }
}
