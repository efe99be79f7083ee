import NetdevTesting
import Testing
import Virtio

/// Each clause that a monitor knows of a packed ring, broken once by a driver or a device that lies: the report names it.
@Suite struct PackedRingMonitorTests {
  private typealias Flag = PackedBench.Flag

  @Test(arguments: [1, 3, 4]) func `honest sides are not found wrong, lap after lap`(size: Int) throws {
    let bench = try PackedBench(size: size)
    for round in 0..<20 {
      bench.offer(id: UInt16(round % 7))
      #expect(bench.kick(rang: true).isEmpty)
      bench.use(id: UInt16(round % 7), length: 20)
      #expect(bench.call(rang: true).isEmpty)
      #expect(bench.endTurn().isEmpty)
    }
  }

  @Test func `chains of several descriptors cross the end, and come back in any order`() throws {
    let bench = try PackedBench(size: 5)
    for _ in 0..<20 {
      bench.offer(id: 8, lengths: [10, 20])
      bench.offer(id: 9, lengths: [10, 20, 30])
      #expect(bench.kick(rang: true).isEmpty)
      bench.use(id: 9, length: 60, places: 3)
      bench.use(id: 8, length: 30, places: 2)
      #expect(bench.call(rang: true).isEmpty)
    }
  }

  @Test func `a batch in order is used by its last chain`() throws {
    let bench = try PackedBench(size: 5) { $0.inOrder = true }
    for _ in 0..<20 {
      bench.offer(id: 1)
      bench.offer(id: 2, lengths: [10, 20])
      bench.offer(id: 3)
      #expect(bench.look().isEmpty)
      bench.use(id: 3, length: 20, places: 4)
      #expect(bench.call(rang: true).isEmpty)
    }
  }

  @Test func `used descriptors that are not shown yet are the device's affair`() throws {
    let bench = try PackedBench()
    for id in 0..<3 { bench.offer(id: UInt16(id)) }
    #expect(bench.look().isEmpty)
    let first = bench.device
    bench.device.advance(of: 4)
    bench.use(id: 1, length: 5)
    bench.device = first
    // Its first used descriptor still looks available.
    bench.write(length: 5, id: 0, flags: Flag.available(true), at: 0, address: nil)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 5)
    #expect(bench.look().isEmpty)
  }

  // MARK: The driver

  @Test func `more descriptors are made available than there are`() throws {
    let bench = try PackedBench()
    for id in 0..<4 { bench.offer(id: UInt16(id)) }
    #expect(bench.look().isEmpty)
    bench.offer(id: 4)
    bench.expect(.availableIndex, in: bench.look())
  }

  @Test func `an id that the device has is given again`() throws {
    let bench = try PackedBench()
    bench.offer(id: 1)
    bench.offer(id: 1)
    bench.expect(.inFlight, in: bench.look())
  }

  @Test func `a chain goes on where nothing is available`() throws {
    let bench = try PackedBench()
    bench.write(length: 64, id: 0, flags: Flag.available(true) | Flag.next, at: 0)
    bench.expect(.next, in: bench.look())
  }

  @Test func `a chain has no end`() throws {
    let bench = try PackedBench()
    for place in 0..<4 { bench.write(length: 64, id: 0, flags: Flag.available(true) | Flag.next, at: place) }
    bench.expect(.chainLength, in: bench.look())
  }

  @Test func `a chain goes on over what the device has`() throws {
    let bench = try PackedBench()
    bench.offer(id: 7)
    #expect(bench.look().isEmpty)
    for place in 1..<4 { bench.write(length: 64, id: 0, flags: Flag.available(true) | Flag.next, at: place) }
    bench.expect(.chainLength, in: bench.look())
  }

  @Test func `a buffer to read behind one to write`() throws {
    let bench = try PackedBench()
    bench.write(length: 64, id: 0, flags: Flag.available(true), at: 1)
    bench.write(length: 64, id: 0, flags: Flag.available(true) | Flag.next | Flag.write, at: 0)
    bench.expect(.readableFirst, in: bench.look())
  }

  @Test(
    arguments: [(0, 16, false), (0, 17, true), (0, 80, true), (0, 0, true), (1, 32, true)] as [(UInt16, UInt32, Bool)])
  func `an indirect table that is none`(flags: UInt16, length: UInt32, isNegotiated: Bool) throws {
    let bench = try PackedBench { $0.indirect = isNegotiated }
    bench.write(length: length, id: 0, flags: Flag.available(true) | Flag.indirect | flags, at: 0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test func `a table behind another buffer`() throws {
    let bench = try PackedBench { $0.indirect = true }
    bench.write(length: 16, id: 0, flags: Flag.available(true) | Flag.indirect, at: 1)
    bench.write(length: 64, id: 0, flags: Flag.available(true) | Flag.next, at: 0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test(arguments: [Flag.next, Flag.indirect]) func `a flag in a table that is not WRITE`(flag: UInt16) throws {
    let bench = try PackedBench { $0.indirect = true }
    bench.storeDescriptor(length: 16, flags: flag)
    bench.write(length: 16, id: 0, flags: Flag.available(true) | Flag.indirect, at: 0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test func `a table of an honest driver`() throws {
    let bench = try PackedBench { $0.indirect = true }
    bench.storeDescriptor(length: 16, flags: Flag.write)
    bench.write(length: 16, id: 0, flags: Flag.available(true) | Flag.indirect, at: 0)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 16)
    #expect(bench.look().isEmpty)
  }

  @Test(
    arguments: [(PackedBench.base + 1, 64, 0, 0), (PackedBench.base, 63, 0, 1), (PackedBench.base, 64, 2, 1)]
      as [(UInt64, UInt32, UInt16, Int)])
  func `a descriptor that the device has changes`(address: UInt64, length: UInt32, id: UInt16, place: Int) throws {
    let bench = try PackedBench()
    for id in 0..<2 { bench.offer(id: UInt16(id)) }
    #expect(bench.look().isEmpty)
    bench.write(length: length, id: id, flags: Flag.available(true) | Flag.write, at: place, address: address)
    bench.expect(.changed, in: bench.look())
  }

  // Reserved bits, the reserved value, a descriptor without EVENT_IDX, and one that there is not.
  private static let wrongWishes: [(UInt32, Bool)] = [
    (4 << 16, true), (3 << 16, true), (2 << 16, false), (2 << 16 | 4, true),
  ]

  @Test(arguments: wrongWishes) func `the driver says nonsense about interrupts`(word: UInt32, eventIndex: Bool) throws
  {
    let bench = try PackedBench { $0.eventIndex = eventIndex }
    bench.driverWish = word
    bench.expect(.driverFlags, in: bench.look())
  }

  @Test(arguments: [true, false], [0, 2 << 16 | 0x8001] as [UInt32])
  func `a doorbell is not rung`(isFirst: Bool, wish: UInt32) throws {
    let bench = try PackedBench { $0.eventIndex = true }
    if !isFirst { #expect(bench.kick(rang: true).isEmpty) }
    bench.deviceWish = wish
    bench.offer(id: 0)
    bench.offer(id: 1)
    bench.expect(.kick, in: bench.kick(rang: false))
  }

  /// Never; at a descriptor that was not reached; at the one of the next lap.
  @Test(arguments: [1 << 16, 2 << 16 | 0x8001, 2 << 16] as [UInt32])
  func `a doorbell that is not wanted is not missed`(wish: UInt32) throws {
    let bench = try PackedBench { $0.eventIndex = true }
    bench.deviceWish = wish
    bench.offer(id: 0)
    #expect(bench.kick(rang: false).isEmpty)
  }

  @Test func `a turn ends with a chain of which nobody knows`() throws {
    let bench = try PackedBench()
    #expect(bench.kick(rang: true).isEmpty)
    bench.offer(id: 0)
    bench.expect(.kickAtTurnEnd, in: bench.endTurn())
  }

  @Test(arguments: [(0, 2), (10, 1)] as [(Int, UInt8)])
  func `a header to transmit says what only a device says`(offset: Int, value: UInt8) throws {
    let bench = try PackedBench { $0.direction = .transmit }
    bench.store(value, at: offset)
    bench.write(length: 64, id: 0, flags: Flag.available(true), at: 0)
    bench.expect(.transmitHeader, in: bench.look())
  }

  // MARK: The device

  @Test func `what was not offered is used`() throws {
    let bench = try PackedBench()
    bench.use(id: 0, length: 0)
    bench.expect(.usedIndex, in: bench.look())
  }

  @Test func `more is used than was offered`() throws {
    let bench = try PackedBench()
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 0)
    bench.use(id: 0, length: 0)
    bench.expect(.usedIndex, in: bench.look())
  }

  @Test(arguments: [1, 4, .max] as [UInt16]) func `a chain is used that the device does not have`(id: UInt16) throws {
    let bench = try PackedBench()
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.use(id: id, length: 0)
    bench.expect(.usedChain, in: bench.look())
  }

  @Test func `a chain is used twice`() throws {
    let bench = try PackedBench()
    bench.offer(id: 0)
    bench.offer(id: 1)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 0)
    bench.use(id: 0, length: 0)
    bench.expect(.usedChain, in: bench.look())
  }

  @Test func `more bytes are used than could be written`() throws {
    let bench = try PackedBench()
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 65)
    bench.expect(.usedLength, in: bench.look())
  }

  @Test func `a length without WRITE means nothing`() throws {
    let bench = try PackedBench()
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.write(length: 65, id: 0, flags: Flag.used(true), at: 0, address: nil)
    #expect(bench.look().isEmpty)
  }

  @Test(arguments: wrongWishes) func `the device says nonsense about kicks`(word: UInt32, eventIndex: Bool) throws {
    let bench = try PackedBench { $0.eventIndex = eventIndex }
    bench.deviceWish = word
    bench.expect(.deviceFlags, in: bench.look())
  }

  @Test(arguments: [true, false], [0, 2 << 16 | 0x8000] as [UInt32])
  func `an interrupt is not sent`(isFirst: Bool, wish: UInt32) throws {
    let bench = try PackedBench { $0.eventIndex = true }
    if !isFirst { #expect(bench.call(rang: true).isEmpty) }
    bench.driverWish = wish
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 0)
    bench.expect(.call, in: bench.call(rang: false))
  }

  @Test func `an event within a chain is passed with it`() throws {
    let bench = try PackedBench { $0.eventIndex = true }
    bench.driverWish = 2 << 16 | 0x8001
    bench.offer(id: 0, lengths: [8, 8])
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 0, places: 2)
    bench.expect(.call, in: bench.call(rang: false))
  }

  @Test func `a turn ends with a used chain of which nobody knows`() throws {
    let bench = try PackedBench()
    #expect(bench.call(rang: true).isEmpty)
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.use(id: 0, length: 0)
    bench.expect(.callAtTurnEnd, in: bench.endTurn())
  }

  @Test(arguments: [(0, true), (2, false), (2, true)] as [(UInt8, Bool)])
  func `a received frame lies in other buffers than it says`(buffers: UInt8, merged: Bool) throws {
    let bench = try PackedBench {
      $0.direction = .receive
      $0.mergedBuffers = merged
    }
    bench.offer(id: 0)
    #expect(bench.look().isEmpty)
    bench.store(buffers, at: 10)
    bench.use(id: 0, length: 64)
    bench.expect(.receivedBuffers, in: bench.call(rang: true))
  }

  @Test func `a frame to transmit is shorter than its header`() throws {
    let bench = try PackedBench { $0.direction = .transmit }
    bench.write(length: 10, id: 0, flags: Flag.available(true), at: 0)
    bench.expect(.transmitHeader, in: bench.look())
  }

  @Test func `every clause of packed rings says where it stands, and what is checked is counted`() throws {
    // Those of the tests above; a new clause wants a new test.
    let cited = RingClause.allCases.compactMap { $0.citation(.packed) }
    #expect(cited.count == 18)
    #expect(cited.allSatisfy { $0.hasPrefix("VIRTIO 1.4 §") })
    let before = RingMonitor.checks(of: .next)
    do {
      let bench = try PackedBench()
      bench.offer(id: 0)
      #expect(bench.look().isEmpty)
    }
    #expect(RingMonitor.checks(of: .next) > before)
  }
}
