import NetdevTesting
import Testing
import Virtio

/// What a driver may not do with a split ring.
extension SplitRingMonitorTests {
  @Test func `avail.idx goes back`() throws {
    let bench = try SplitBench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.driver.publish(index: 0)
    bench.expect(.availableIndex, in: bench.look())
  }

  @Test func `more chains are offered than the ring has descriptors`() throws {
    let bench = try SplitBench()
    bench.driver.publish(index: 5)
    bench.expect(.availableIndex, in: bench.look())
  }

  @Test func `a head beyond the table`() throws {
    let bench = try SplitBench()
    bench.offer(4)
    bench.expect(.head, in: bench.look())
  }

  @Test func `a chain in flight is offered again`() throws {
    let bench = try SplitBench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.offer(0)
    bench.expect(.inFlight, in: bench.look())
  }

  @Test func `two chains share a descriptor`() throws {
    let bench = try SplitBench()
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 2)
    bench.write(1, length: 64, flags: Descriptor.hasNext, next: 2)
    bench.write(2, length: 64)
    bench.offer(0, 1)
    bench.expect(.inFlight, in: bench.look())
  }

  @Test func `a chain that leads out of the table`() throws {
    let bench = try SplitBench()
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 4)
    bench.offer(0)
    bench.expect(.next, in: bench.look())
  }

  @Test func `a chain that leads to itself`() throws {
    let bench = try SplitBench()
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 1)
    bench.write(1, length: 64, flags: Descriptor.hasNext, next: 0)
    bench.offer(0)
    bench.expect(.chainLength, in: bench.look())
  }

  @Test func `a buffer to read behind one to write`() throws {
    let bench = try SplitBench()
    bench.write(0, length: 64, flags: Descriptor.hasNext | Descriptor.isWritable, next: 1)
    bench.write(1, length: 64, flags: 0)
    bench.offer(0)
    bench.expect(.readableFirst, in: bench.look())
  }

  @Test(arguments: [(0, 16), (0, 0), (0, 17), (0, 80), (1, 32)] as [(UInt16, UInt32)])
  func `an indirect table that is none`(flags: UInt16, length: UInt32) throws {
    let isNegotiated = length != 16
    let bench = try SplitBench { $0.indirect = isNegotiated }
    bench.write(0, length: length, flags: Descriptor.isIndirect | flags)
    bench.offer(0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test func `a table in a table`() throws {
    let bench = try SplitBench { $0.indirect = true }
    bench.store(Descriptor(address: SplitBench.base, length: 16, flags: Descriptor.isIndirect))
    bench.write(0, length: 16, flags: Descriptor.isIndirect)
    bench.offer(0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test func `descriptors are not taken in table order`() throws {
    let bench = try SplitBench { $0.inOrder = true }
    bench.write(1, length: 64)
    bench.offer(1)
    bench.expect(.tableOrder, in: bench.look())
  }

  @Test func `a descriptor is left out in table order`() throws {
    let bench = try SplitBench { $0.inOrder = true }
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 2)
    bench.write(2, length: 64)
    bench.offer(0)
    bench.expect(.tableOrder, in: bench.look())
  }

  @Test func `a descriptor that the device has changes`() throws {
    let bench = try SplitBench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.write(0, length: 65)
    bench.expect(.changed, in: bench.look())
  }

  @Test func `a descriptor changes and its chain is returned before it is compared`() throws {
    let bench = try SplitBench(size: 64)
    for index in 0..<64 { bench.write(index, length: 64) }
    for index in 0..<64 { bench.driver.offer(UInt16(index)) }
    bench.driver.publish()
    #expect(bench.look().isEmpty)
    bench.write(50, length: 65)
    bench.use(50, length: 64)
    bench.expect(.changed, in: bench.taking())
  }

  @Test(arguments: [false, true]) func `an entry of a table that the device has changes`(isReturned: Bool) throws {
    let bench = try SplitBench {
      $0.indirect = true
      $0.saysWhatItTakes = true
    }
    bench.store(Descriptor(address: SplitBench.base + 256, length: 64))
    bench.write(0, length: 16, flags: Descriptor.isIndirect)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.store(Descriptor(address: SplitBench.base + 512, length: 9))
    if isReturned { bench.use(0, length: 0) }
    bench.expect(.changed, in: bench.look())
  }

  @Test func `an available entry that the device has changes`() throws {
    let bench = try SplitBench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.driver.availIndex = 0
    bench.driver.offer(3)
    bench.expect(.changed, in: bench.look())
  }

  @Test func `a driver with event indices sets flags`() throws {
    let bench = try SplitBench { $0.eventIndex = true }
    bench.driver.setAvailFlags(1)
    bench.expect(.driverFlags, in: bench.look())
  }

  @Test(arguments: [true, false], [true, false])
  func `a doorbell is not rung`(eventIndex: Bool, isFirst: Bool) throws {
    let bench = try SplitBench { $0.eventIndex = eventIndex }
    if !isFirst { #expect(bench.kick(rang: true).isEmpty) }
    bench.offerOne()
    bench.expect(.kick, in: bench.kick(rang: false))
  }

  @Test func `a doorbell that is not wanted is not missed`() throws {
    let bench = try SplitBench { $0.eventIndex = true }
    #expect(bench.kick(rang: true).isEmpty)
    bench.setAvailEvent(7)
    bench.offerOne()
    #expect(bench.kick(rang: false).isEmpty)
  }

  @Test func `a turn ends with a chain of which nobody knows`() throws {
    let bench = try SplitBench()
    #expect(bench.kick(rang: true).isEmpty)
    bench.offerOne()
    bench.expect(.kickAtTurnEnd, in: bench.endTurn())
  }

  @Test(arguments: [(0, 2), (10, 1)] as [(Int, UInt8)])
  func `a header to transmit says what only a device says`(offset: Int, value: UInt8) throws {
    let bench = try SplitBench { $0.direction = .transmit }
    bench.store(value, at: offset)
    bench.offerOne()
    bench.expect(.transmitHeader, in: bench.look())
  }

  @Test func `a frame to transmit is shorter than its header`() throws {
    let bench = try SplitBench { $0.direction = .transmit }
    bench.write(0, length: 10, flags: 0)
    bench.offer(0)
    bench.expect(.transmitHeader, in: bench.look())
  }

  @Test(arguments: [(0, 0xff), (10, 1)] as [(Int, UInt8)])
  func `a header in two descriptors says what only a device says`(offset: Int, value: UInt8) throws {
    let bench = try SplitBench { $0.direction = .transmit }
    bench.store(value, at: offset)
    bench.write(0, length: 6, flags: Descriptor.hasNext, next: 1)
    bench.write(1, length: 70, flags: 0, at: SplitBench.base + 6)
    bench.offer(0)
    bench.expect(.transmitHeader, in: bench.look())
  }

  /// Links of a chain before its table count, too.
  @Test func `a chain and its table have more links than the ring`() throws {
    let bench = try SplitBench { $0.indirect = true }
    for entry in 0..<3 as Range<UInt16> {
      bench.store(
        Descriptor(address: SplitBench.base, length: 8, flags: entry < 2 ? Descriptor.hasNext : 0, next: entry + 1),
        entry: Int(entry))
    }
    bench.write(0, length: 8, flags: Descriptor.hasNext, next: 1)
    bench.write(1, length: 8, flags: Descriptor.hasNext, next: 2)
    bench.write(2, length: 48, flags: Descriptor.isIndirect)
    bench.offer(0)
    bench.expect(.chainLength, in: bench.look())
  }

  /// To themselves, out of the table, and not in its order with IN_ORDER.
  @Test(
    arguments: [
      ([0], false, .chainLength), ([1, 0], false, .chainLength), ([2, 0], false, .next),
      ([2, 0, 1], true, .tableOrder),
    ] as [([UInt16], Bool, RingClause)])
  func `the entries of a table lead elsewhere`(next: [UInt16], inOrder: Bool, clause: RingClause) throws {
    let bench = try SplitBench {
      $0.indirect = true
      $0.inOrder = inOrder
    }
    for (entry, next) in next.enumerated() {
      bench.store(
        Descriptor(address: SplitBench.base, length: 8, flags: Descriptor.hasNext, next: next), entry: entry)
    }
    bench.write(0, length: UInt32(16 * next.count), flags: Descriptor.isIndirect)
    bench.offer(0)
    bench.expect(clause, in: bench.look())
  }
}
