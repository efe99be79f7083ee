import CNetdevSystem
import Glibc
import Netdev
import TestSupport
import Testing
import VirtioNet

@testable import VhostUser

/// Memory that a device maps is a file both sides hold: were it cut, whoever looks behind its new end next would get SIGBUS.
/// Ours is sealed before anybody sees it, so the length that a device was told stays true.
@Suite struct SealedMemoryTests {
  // From linux/fcntl.h.
  private static let addSeals: CInt = 1033
  private static let getSeals: CInt = 1034
  private static let sealSeal: CInt = 1
  private static let sealShrink: CInt = 2
  private static let sealGrow: CInt = 4

  /// What `call` failed with; 0 when it did not.
  private func refusal(_ call: () -> CInt) -> CInt { call() == 0 ? 0 : errno }

  private func expectSealed(_ descriptor: CInt, _ length: Int, sourceLocation: SourceLocation = #_sourceLocation) {
    var status = stat()
    #expect(unsafe fstat(descriptor, &status) == 0, sourceLocation: sourceLocation)
    #expect(Int(status.st_size) == length, sourceLocation: sourceLocation)
    #expect(
      fcntl(descriptor, Self.getSeals) == Self.sealSeal | Self.sealShrink | Self.sealGrow,
      sourceLocation: sourceLocation)
    for other in [0, length / 2, length - 1, length + 1, 2 * length] {
      #expect(refusal { ftruncate(descriptor, off_t(other)) } == EPERM, "to \(other)", sourceLocation: sourceLocation)
    }
    // Nor may who holds it seal it against our own writing.
    let sealWrite: CInt = 8
    #expect(refusal { fcntl(descriptor, Self.addSeals, sealWrite) } == EPERM, sourceLocation: sourceLocation)
    #expect(unsafe fstat(descriptor, &status) == 0, sourceLocation: sourceLocation)
    #expect(Int(status.st_size) == length, sourceLocation: sourceLocation)
  }

  @Test(arguments: [false, true])
  func `Device rule 17: nobody who holds a pool's memory can cut it, grow it or seal it further`(hugePages: Bool)
    async throws
  {
    let pool = try PacketPool(.init(slots: 64, hugePages: hugePages))
    expectSealed(pool.descriptor, pool.length)
    // A peer has a descriptor of its own, as `recvmsg` makes one, or opens the file anew.
    let copy = dup(pool.descriptor)
    defer { close(copy) }
    expectSealed(copy, pool.length)
    let opened = unsafe open("/proc/self/fd/\(pool.descriptor)", O_RDWR | O_CLOEXEC)
    defer { close(opened) }
    expectSealed(opened, pool.length)
    let packet = try Packet(copying: numbered(1), in: pool)
    #expect(packet.array == numbered(1))
  }

  @Test func `Device rule 17: nobody who holds the rings' memory can cut it, grow it or seal it further`() throws {
    let transport = try VhostUserTransport(.init(path: "/nobody-listens-here"))
    let memory = try transport.makeRingMemory(bytes: 10_000)
    let descriptor = try #require(memory.descriptor)
    #expect(memory.length == 12_288)
    expectSealed(descriptor, memory.length)
    unsafe memory.pointer.storeBytes(of: 1, toByteOffset: memory.length - 1, as: UInt8.self)
    withExtendedLifetime(memory) {}
  }

  @Test(arguments: Rings.allCases)
  func `Device rule 17: all that a back-end is shown is sealed when it gets it, whatever rings lie there`(
    _ rings: Rings
  ) async throws {
    let backend = ScriptedBackend(.init(rings))
    defer { backend.end() }
    backend.keepMemory()
    var opening = Opening(backend)
    opening.use(rings)
    let device = try await opening.open()
    let shown = backend.memory
    #expect(shown.count == 2)
    for region in shown { expectSealed(region.descriptor, Int(region.size)) }
    try? await device.close()
  }
}
