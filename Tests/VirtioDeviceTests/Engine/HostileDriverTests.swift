import CNetdevSystem
import CTestSupport
import Foundation
import Synchronization
import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// Invariant 6, the device side. What a driver that breaks the rules can do: lose its own frames, or break its own ring, and
/// nothing else.
@Suite(.serialized) struct HostileDriverTests {
  private static let hasNext = LyingDriverRing.Descriptor.hasNext
  private static let writable = LyingDriverRing.Descriptor.isWritable
  private static let indirect = LyingDriverRing.Descriptor.isIndirect

  /// Sends one honest frame and sees it come back: the queue is not wedged.
  private func proveAlive(_ rig: Rig, sourceLocation: SourceLocation = #_sourceLocation) {
    while rig.receive.takeUsed() != nil {}
    while rig.transmit.takeUsed() != nil {}
    let buffer = rig.offerReceive([1526])
    let sent = rig.offerTransmit(frame: pattern(64, seed: 9))
    rig.serve()
    #expect(rig.receive.takeUsed()?.written == 76, sourceLocation: sourceLocation)
    expectSame(rig.contents(buffer, 76), plainHeader() + pattern(64, seed: 9), sourceLocation: sourceLocation)
    #expect(rig.transmit.takeUsed()?.id == UInt32(sent.head), sourceLocation: sourceLocation)
  }

  /// Offers a transmit chain made of raw descriptors at places 40, 41, …
  private func offer(_ descriptors: [LyingDriverRing.Descriptor], on ring: LyingDriverRing) {
    for (index, descriptor) in descriptors.enumerated() { ring.write(descriptor, at: 40 + index) }
    ring.offer(40)
    ring.publish()
  }

  /// Chains that break a rule, with the rule.
  static let malformed: [(String, [LyingDriverRing.Descriptor])] = {
    let good = Rig.guestBase + (4 << 20)
    func d(_ address: UInt64, _ length: UInt32, _ flags: UInt16 = 0, _ next: UInt16 = 0) -> LyingDriverRing.Descriptor {
      LyingDriverRing.Descriptor(address: address, length: length, flags: flags, next: next)
    }
    return [
      ("§2.7.5 a chain that loops onto itself", [d(good, 16, hasNext, 40)]),
      ("§2.7.5 two descriptors that lead to one another", [d(good, 16, hasNext, 41), d(good, 16, hasNext, 40)]),
      ("§2.7.5 next beyond the table", [d(good, 16, hasNext, 65535)]),
      ("§2.7.4.2 readable after writable", [d(good, 16, hasNext | writable, 41), d(good, 16)]),
      ("unmapped address", [d(0x10, 100)]),
      ("a range that runs past the end of memory", [d(Rig.guestBase + (16 << 20) - 8, 16)]),
      ("an address that wraps", [d(UInt64.max - 4, 16)]),
      ("§2.7.5.3.1 an indirect table of odd length", [d(good, 17, indirect)]),
      ("§2.7.5.3.1 an empty indirect table", [d(good, 0, indirect)]),
      ("§2.7.5.3.1 INDIRECT with NEXT", [d(good, 32, indirect | hasNext, 41), d(good, 16)]),
      ("an unmapped indirect table", [d(0x20, 32, indirect)]),
      ("§2.7.5.3.1 an indirect table longer than the ring", [d(good, 16 * 65, indirect)]),
    ]
  }()

  @Test(arguments: 0..<12)
  func `Device rule 18: a malformed transmit chain comes back with length 0 and the queue goes on`(_ index: Int) throws
  {
    let (name, descriptors) = Self.malformed[index]
    let rig = try Rig()
    offer(descriptors, on: rig.transmit)
    rig.serve()
    let used = rig.transmit.takeUsed()
    #expect(used?.id == 40 && used?.written == 0, "\(name)")
    #expect(rig.engine.malformedChains == 1, "\(name)")
    #expect(rig.engine.transmitFailure == nil, "\(name)")
    proveAlive(rig)
  }

  @Test(arguments: 0..<12)
  func `Device rule 18: a malformed receive chain comes back with length 0 and the queue goes on`(_ index: Int) throws {
    let (name, descriptors) = Self.malformed[index]
    let rig = try Rig()
    offer(descriptors, on: rig.receive)
    let buffer = rig.offerReceive([1526])
    rig.offerTransmit(frame: pattern(100))
    rig.offerTransmit(frame: pattern(100))
    rig.serve()
    var used: [(id: UInt32, written: UInt32)] = []
    while let element = rig.receive.takeUsed() { used.append(element) }
    #expect(used.contains { $0.id == 40 && $0.written == 0 }, "\(name)")
    #expect(used.contains { $0.id == UInt32(buffer.head) && $0.written == 112 }, "\(name)")
    #expect(used.count == 2, "\(name)")
    proveAlive(rig)
  }

  @Test
  func `Device rules 1, 15: avail.idx that jumps beyond the ring breaks that ring only, once, and asks for a reset`()
    throws
  {
    let rig = try Rig()
    rig.offerReceive([1526])
    rig.transmit.publish(index: 65)
    rig.serve()
    rig.serve()
    #expect(rig.engine.transmitFailure == RingError(.availIndexJump, 65))
    #expect(rig.engine.receiveFailure == nil)
    #expect(rig.device.status.contains(.needsReset))
    // Repaired too late: a broken ring stays broken until the reset.
    rig.transmit.publish()
    rig.offerTransmit(frame: pattern(64))
    rig.serve()
    #expect(rig.transmit.usedCount == 0)
  }

  @Test func `Device rule 15: a broken receive ring does not wedge the transmit ring`() throws {
    let rig = try Rig()
    rig.receive.offer(64)
    rig.receive.publish()
    for _ in 0..<5 { rig.offerTransmit(frame: pattern(64)) }
    rig.serve()
    #expect(rig.engine.receiveFailure == RingError(.headOutOfRange, 64))
    #expect(rig.engine.transmitFailure == nil)
    #expect(rig.transmit.usedCount == 5)
    #expect(rig.device.status.contains(.needsReset))
  }

  @Test func `Device rule 15: one pair's broken ring leaves the other pairs alone`() throws {
    let backend = LoopbackBackend(pairs: 2)
    let hand = try HandTurnedLoop.withEvents()
    let first = try Rig(backend: backend, pair: 0, hand: hand)
    let second = try Rig(backend: backend, pair: 1, hand: hand)
    first.transmit.publish(index: 5000)
    first.serve()
    #expect(first.engine.transmitFailure != nil)
    proveAlive(second)
  }

  @Test(arguments: [0, 1, 11, 12])
  func `Device rule 7: a frame no longer than its header is dropped and counted, §5.1.9.2`(_ length: Int) throws {
    let rig = try Rig()
    let address = rig.allocate(16)
    rig.transmit.write(LyingDriverRing.Descriptor(address: address, length: UInt32(length)), at: 40)
    rig.transmit.offer(40)
    rig.transmit.publish()
    rig.serve()
    #expect(rig.engine.statistics.drops[.shorterThanHeader] == 1)
    #expect(rig.transmit.takeUsed()?.written == 0)
    #expect(rig.receive.usedCount == 0)
    proveAlive(rig)
  }

  @Test(
    arguments: [
      [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0],
      [1, 1, 0, 0, 100, 0, 0, 0, 16, 0, 0, 0],
      [0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    ] as [[UInt8]])
  func `Device rule 8: an offload that was not negotiated is dropped and counted, §5.1.9.2.2`(_ header: [UInt8]) throws
  {
    let rig = try Rig()
    for pieces in [[], [3, 3, 3]] {
      rig.offerReceive([1526])
      rig.offerTransmit(header: header, frame: pattern(64), pieces: pieces)
      rig.serve()
      #expect(rig.receive.usedCount == 0)
      #expect(rig.transmit.takeUsed()?.written == 0)
    }
    #expect(rig.engine.statistics.drops[.offloadNotNegotiated] == 2)
  }

  @Test
  func `Device rule 8: hdr_len, unknown flags and num_buffers of a transmitted header are not looked at, §5.1.9.2.2`()
    throws
  {
    let rig = try Rig()
    let buffer = rig.offerReceive([1526])
    rig.offerTransmit(
      header: [0xFE, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], frame: pattern(64))
    rig.serve()
    expectSame(rig.contents(buffer, 76), plainHeader() + pattern(64))
  }

  @Test func `Device rule 6: descriptor tables and transmitted buffers are never written`() throws {
    let rig = try Rig()
    var sent: [Rig.Buffer] = []
    for index in 0..<20 {
      rig.offerReceive([300, 1226])
      sent.append(rig.offerTransmit(frame: pattern(700, seed: index), pieces: [12, 100]))
    }
    let tables = (rig.receive.table, rig.transmit.table)
    rig.serve()
    #expect(rig.receive.usedCount == 20)
    expectSame(rig.receive.table, tables.0)
    expectSame(rig.transmit.table, tables.1)
    for (index, buffer) in sent.enumerated() {
      expectSame(rig.contents(buffer, 712), [UInt8](repeating: 0, count: 12) + pattern(700, seed: index))
    }
  }

  @Test(arguments: [0, 1, 11])
  func `a receive buffer without room for a header comes back empty, and the next one is used`(_ length: Int) throws {
    let rig = try Rig()
    let small = rig.offerReceive([length])
    let buffer = rig.offerReceive([1526])
    rig.offerTransmit(frame: pattern(50))
    rig.serve()
    let first = rig.receive.takeUsed()
    #expect(first?.id == UInt32(small.head) && first?.written == 0)
    let second = rig.receive.takeUsed()
    #expect(second?.id == UInt32(buffer.head) && second?.written == 62)
    proveAlive(rig)
  }

  @Test func `a frame whose buffers are its own receive buffers, or the rings, harms nobody else`() throws {
    let rig = try Rig()
    let place = rig.allocate(2000)
    rig.receive.write(LyingDriverRing.Descriptor(address: place, length: 1526, flags: Self.writable), at: 0)
    rig.receive.offer(0)
    rig.receive.publish()
    rig.transmit.write(LyingDriverRing.Descriptor(address: place + 7, length: 1000), at: 0)
    rig.transmit.offer(0)
    rig.transmit.publish()
    rig.serve()
    #expect(rig.transmit.usedCount == 1)
    // The transmit ring's own memory as a receive buffer: the driver ruins its own ring.
    rig.receive.write(
      LyingDriverRing.Descriptor(address: Rig.guestBase + (1 << 20), length: 1 << 12, flags: Self.writable), at: 1)
    rig.receive.offer(1)
    rig.receive.publish()
    for _ in 0..<3 { rig.offerTransmit(frame: pattern(1400)) }
    rig.serve()
    #expect(rig.hand.settle() < 10_000)
  }

  @Test func `Device rule 15: random rings never trap, spin, or write outside the driver's memory`() throws {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<300 {
      let rig = try Rig(
        queueSize: 8, features: Bool.random(using: &generator) ? nil : [.version1], memorySize: 3 << 20)
      for ring in [rig.receive, rig.transmit] {
        for _ in 0..<20 {
          for index in 0..<8 {
            let table = Int.random(in: 0..<4, using: &generator)
            ring.write(
              LyingDriverRing.Descriptor(
                address: table == 0
                  ? UInt64.random(in: 0...UInt64.max, using: &generator)
                  : Rig.guestBase + UInt64.random(in: 0..<(3 << 20), using: &generator),
                length: UInt32(truncatingIfNeeded: Int.random(in: 0..<4096, using: &generator)),
                flags: UInt16.random(in: 0...7, using: &generator), next: UInt16.random(in: 0...8, using: &generator)),
              at: index)
          }
          ring.offer(UInt16.random(in: 0...8, using: &generator))
          if Int.random(in: 0..<30, using: &generator) == 0 {
            ring.publish(index: UInt16.random(in: 0...UInt16.max, using: &generator))
          } else {
            ring.publish()
          }
          rig.engine.kickReceive()
          rig.engine.kickTransmit()
          #expect(rig.hand.settle() < 10_000)
        }
      }
      rig.engine.stop()
      #expect(rig.isFenceIntact)
    }
  }

  @Test(.enabled(if: test_thread_sanitizer() == 0, "its races are the point: nothing for the thread sanitizer"))
  func `Device rule 2: a driver that rewrites descriptors and headers while they are read harms only itself`() throws {
    let rig = try Rig(queueSize: 16, memorySize: 3 << 20)
    let stop = Atomic<Bool>(false)
    // Raw addresses: the other thread shares nothing with the rig but the driver's memory.
    let receiveTable = unsafe UInt(bitPattern: rig.block)
    let transmitTable = receiveTable + 1 << 20
    let header = receiveTable + 2 << 20
    let mutator = Thread {
      var generator = SystemRandomNumberGenerator()
      while !stop.load(ordering: .relaxed) {
        for table in [receiveTable, transmitTable] {
          let place = table + UInt(16 * Int.random(in: 0..<16, using: &generator))
          guard let descriptor = unsafe UnsafeMutableRawPointer(bitPattern: place) else { return }
          let lengths: [UInt32] = [0, 5, 12, 13, 1526, 1 << 20, .max]
          unsafe netdev_store_relaxed_u32(descriptor + 8, lengths.randomElement(using: &generator) ?? 0)
          let addresses: [UInt64] = [Rig.guestBase + 2 << 20, Rig.guestBase + (3 << 20) - 13, 0, .max]
          unsafe netdev_store_relaxed_u64(descriptor, addresses.randomElement(using: &generator) ?? 0)
          unsafe netdev_store_relaxed_u16(descriptor + 12, UInt16.random(in: 0...7, using: &generator))
        }
        guard let first = unsafe UnsafeMutableRawPointer(bitPattern: header) else { return }
        unsafe netdev_store_relaxed_u32(first, UInt32.random(in: 0...UInt32.max, using: &generator))
      }
    }
    mutator.start()
    let end = ContinuousClock.now + .milliseconds(500)
    for head in 0..<8 { rig.receive.offer(UInt16(head)) }
    rig.receive.publish()
    while ContinuousClock.now < end {
      for head in 0..<8 { rig.transmit.offer(UInt16(head)) }
      rig.transmit.publish()
      rig.serve()
      // Each chain comes back, whatever became of it.
      #expect(rig.transmit.usedCount == 8)
      while rig.transmit.takeUsed() != nil {}
      while let used = rig.receive.takeUsed() { rig.receive.offer(UInt16(truncatingIfNeeded: used.id)) }
      rig.receive.publish()
      if rig.engine.receiveFailure != nil || rig.engine.transmitFailure != nil { break }
    }
    stop.store(true, ordering: .relaxed)
    while !mutator.isFinished { usleep(100) }
    #expect(rig.engine.receiveFailure == nil && rig.engine.transmitFailure == nil)
    #expect(rig.isFenceIntact)
  }

  @Test func `Device rule 6: memory that is mapped read-only is read and never written`() throws {
    let page = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let start = unsafe page, unsafe start != MAP_FAILED else { throw POSIXError(.ENOMEM) }
    defer { unsafe munmap(start, 4096) }
    unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
    #expect(unsafe mprotect(start, 4096, PROT_READ) == 0)
    let address: UInt64 = 0x9000_0000
    let region = unsafe GuestRegion(address: address, length: 4096, host: start, isWritable: false)
    let rig = try Rig(otherRegions: [region])
    rig.receive.write(LyingDriverRing.Descriptor(address: address, length: 1526, flags: Self.writable), at: 40)
    rig.receive.offer(40)
    rig.receive.publish()
    let buffer = rig.offerReceive([1526])
    rig.transmit.write(LyingDriverRing.Descriptor(address: address + 100, length: 112), at: 40)
    rig.transmit.offer(40)
    rig.transmit.publish()
    rig.serve()
    rig.serve()
    #expect(rig.transmit.takeUsed()?.id == 40)
    let refused = rig.receive.takeUsed()
    #expect(refused?.id == 40 && refused?.written == 0)
    expectSame(rig.contents(buffer, 112), plainHeader() + [UInt8](repeating: 0, count: 100))
  }
}
