import CNetdevSystem
import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// As `HostileDriverTests`, with packed rings, in order and not: a driver that breaks the rules loses its own frames, or breaks
/// its own ring, and nothing else.
@Suite(.serialized) struct PackedHostileDriverTests {
  /// A raw driver's packed rings, and the engine opposite. Receive ring, transmit ring and buffers have a megabyte each.
  @safe private final class PackedRig {
    static let base: UInt64 = 0x4000_0000
    static let buffers = base + (2 << 20)
    static let size = 8
    private static let bytes = 3 << 20

    let hand: HandTurnedLoop
    let device = VirtioNetDevice(backend: LoopbackBackend())
    let engine: QueuePairEngine
    private let block: UnsafeMutableRawPointer

    init(inOrder: Bool) throws {
      unsafe block = .allocate(byteCount: Self.bytes, alignment: 4096)
      unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: Self.bytes)
      hand = try HandTurnedLoop.withEvents()
      device.setStatus([.acknowledge, .driver])
      device.setDriverFeatures(inOrder ? device.offeredFeatures : device.offeredFeatures.subtracting(.inOrder))
      device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
      try #require(device.negotiatedFeatures?.contains(.ringPacked) == true)
      engine = try device.makeEngine(
        pair: 0, loop: hand.loop, receive: unsafe RingAreas(.packed, size: Self.size, block: block),
        transmit: unsafe RingAreas(.packed, size: Self.size, block: block + (1 << 20)),
        memory: GuestMemory([unsafe GuestRegion(address: Self.base, length: UInt64(Self.bytes), host: block)]),
        receiveLine: TestLine(), transmitLine: TestLine())
      try engine.start()
    }

    deinit {
      engine.stop()
      unsafe block.deallocate()
    }

    private func descriptor(_ isTransmit: Bool, _ place: Int) -> UnsafeMutableRawPointer {
      unsafe block + ((isTransmit ? 1 << 20 : 0) + 16 * place)
    }

    /// Makes a descriptor available, on the first lap.
    func offer(_ one: Offered, at place: Int, transmit isTransmit: Bool) {
      let descriptor = unsafe descriptor(isTransmit, place)
      unsafe netdev_store_relaxed_u64(descriptor, one.address)
      unsafe netdev_store_relaxed_u32(descriptor + 8, one.length)
      unsafe netdev_store_relaxed_u16(descriptor + 12, one.id)
      unsafe netdev_store_release_u16(descriptor + 14, one.flags | 0x80)
    }

    /// What the device has put there, if it has.
    func used(at place: Int, transmit isTransmit: Bool) -> (length: UInt32, id: UInt16)? {
      let descriptor = unsafe descriptor(isTransmit, place)
      guard unsafe netdev_load_acquire_u16(descriptor + 14) & 0x8080 == 0x8080 else { return nil }
      return unsafe (netdev_load_relaxed_u32(descriptor + 8), netdev_load_relaxed_u16(descriptor + 12))
    }

    func bytes(_ count: Int, at address: UInt64) -> [UInt8] {
      unsafe Array(UnsafeRawBufferPointer(start: block + Int(address - Self.base), count: count))
    }

    func store(_ bytes: [UInt8], at address: UInt64) {
      for (position, byte) in bytes.enumerated() {
        unsafe (block + Int(address - Self.base) + position).storeBytes(of: byte, as: UInt8.self)
      }
    }

    /// Writes anything anywhere into the rings.
    func scribble(_ word: UInt64, at word64: Int, transmit isTransmit: Bool) {
      unsafe netdev_store_relaxed_u64(descriptor(isTransmit, 0) + 8 * word64, word)
    }

    /// Kicks both rings and turns until the loop would sleep; the turns that it took.
    @discardableResult func serve() -> Int {
      engine.kickTransmit()
      engine.kickReceive()
      return hand.settle()
    }
  }

  /// A descriptor without its marks.
  struct Offered: Sendable {
    var address: UInt64
    var length: UInt32
    var id: UInt16 = 7
    /// NEXT is 1, WRITE is 2, INDIRECT is 4.
    var flags: UInt16 = 0
  }

  /// Chains that break a rule, with the rule; the last descriptor's id is 7.
  private static let malformed: [(rule: String, chain: [Offered])] = {
    let good = PackedRig.buffers
    return [
      ("unmapped address", [Offered(address: 0x10, length: 100)]),
      ("an address that wraps", [Offered(address: .max - 4, length: 16)]),
      ("a range that runs past the end of memory", [Offered(address: good + (1 << 20) - 8, length: 16)]),
      (
        "§2.8.5 readable after writable",
        [Offered(address: good, length: 16, id: 1, flags: 3), Offered(address: good, length: 16)]
      ),
      ("§2.8.7 an indirect table of odd length", [Offered(address: good, length: 17, flags: 4)]),
      ("§2.8.7 an empty indirect table", [Offered(address: good, length: 0, flags: 4)]),
      ("an unmapped indirect table", [Offered(address: 0x20, length: 32, flags: 4)]),
      (
        "§2.8.7 INDIRECT with NEXT",
        [Offered(address: good, length: 32, id: 1, flags: 5), Offered(address: good, length: 16)]
      ),
    ]
  }()

  /// Sends one honest frame, from the given places on, and sees it come back: the queue is not wedged.
  private func proveAlive(_ rig: PackedRig, receive: Int, transmit: Int, _ rule: String) {
    let (buffer, frame) = (PackedRig.buffers + 8192, PackedRig.buffers + 4096)
    let bytes = [UInt8](repeating: 0, count: 12) + pattern(64, seed: 9)
    rig.store(bytes, at: frame)
    rig.offer(Offered(address: buffer, length: 1526, id: 3, flags: 2), at: receive, transmit: false)
    rig.offer(Offered(address: frame, length: UInt32(bytes.count), id: 5), at: transmit, transmit: true)
    rig.serve()
    let received = rig.used(at: receive, transmit: false)
    #expect(received?.length == 76 && received?.id == 3, "\(rule)")
    #expect(rig.used(at: transmit, transmit: true)?.id == 5, "\(rule)")
    expectSame(rig.bytes(76, at: buffer), plainHeader() + pattern(64, seed: 9))
  }

  @Test(arguments: malformed.indices, [false, true])
  func `Device rule 18: a malformed chain comes back with length 0 and the queue goes on`(
    _ index: Int, inOrder: Bool
  ) throws {
    let (rule, chain) = Self.malformed[index]
    for isTransmit in [false, true] {
      let rig = try PackedRig(inOrder: inOrder)
      // The first descriptor's marks last, as a driver writes them.
      for (place, one) in chain.enumerated().reversed() { rig.offer(one, at: place, transmit: isTransmit) }
      if isTransmit {
        rig.serve()
        proveAlive(rig, receive: 0, transmit: chain.count, rule)
      } else {
        // A receive buffer is looked at when there is a frame for it.
        proveAlive(rig, receive: chain.count, transmit: 0, rule)
      }
      let used = rig.used(at: 0, transmit: isTransmit)
      #expect(used?.length == 0 && used?.id == 7, "\(rule)")
      #expect(rig.engine.malformedChains == 1, "\(rule)")
      #expect(rig.engine.transmitFailure == nil && rig.engine.receiveFailure == nil, "\(rule)")
      #expect(!rig.device.status.contains(.needsReset), "\(rule)")
    }
  }

  @Test(arguments: [false, true])
  func `Device rules 1, 15: a chain without an end breaks its ring only, and asks for a reset`(inOrder: Bool) throws {
    let rig = try PackedRig(inOrder: inOrder)
    for place in (0..<PackedRig.size).reversed() {
      rig.offer(Offered(address: PackedRig.buffers, length: 16, flags: 1), at: place, transmit: true)
    }
    rig.offer(Offered(address: PackedRig.buffers + 8192, length: 1526, flags: 2), at: 0, transmit: false)
    rig.serve()
    rig.serve()
    #expect(rig.engine.transmitFailure == RingError(.chainLoop, UInt64(PackedRig.size)))
    #expect(rig.engine.receiveFailure == nil)
    #expect(rig.device.status.contains(.needsReset))
    #expect(rig.used(at: 0, transmit: true) == nil && rig.used(at: 0, transmit: false) == nil)
  }

  @Test(arguments: 0..<20) func `Device rule 15: random rings never trap, spin, or lead outside`(seed: Int) throws {
    var random = SeededRandom(seed: UInt64(seed))
    let rig = try PackedRig(inOrder: seed % 2 == 0)
    for _ in 0..<500 {
      let isTransmit = random.oneIn(2)
      for _ in 0..<4 {
        let one = Offered(
          address: random.oneIn(4) ? random.next() : PackedRig.base + random.next() % (3 << 20),
          length: UInt32(random.below(4096)), id: UInt16(truncatingIfNeeded: random.next()),
          flags: UInt16(random.below(8)) | (random.oneIn(2) ? 0x8000 : 0))
        rig.offer(one, at: random.below(PackedRig.size), transmit: isTransmit)
      }
      if random.oneIn(10) {
        rig.scribble(random.next(), at: random.below(2 * PackedRig.size + 2), transmit: isTransmit)
      }
      #expect(rig.serve() < 10_000)
    }
  }
}
