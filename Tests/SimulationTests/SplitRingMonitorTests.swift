import NetdevTesting
import Testing
import Virtio

/// Each clause that a monitor knows of a split ring, broken once by a driver or a device that lies: the report names it.
@Suite struct SplitRingMonitorTests {
  private typealias Descriptor = LyingDriverRing.Descriptor

  @Test func `honest sides are not found wrong, and indices wrap`() throws {
    let bench = try Bench(startIndex: 65_533)
    for round in 0..<12 {
      bench.write(round % 4, length: 64)
      bench.offer(UInt16(round % 4))
      #expect(bench.kick(rang: true).isEmpty)
      bench.use(UInt32(round % 4), length: 20)
      #expect(bench.call(rang: true).isEmpty)
      #expect(bench.endTurn().isEmpty)
    }
  }

  @Test func `what came and went between two looks is taken in order`() throws {
    let bench = try Bench()
    bench.write(0, length: 64)
    bench.write(1, length: 64)
    // Offered, used, and offered again.
    bench.offer(0, 1)
    bench.use(0, length: 5)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.use(1, length: 5)
    bench.use(0, length: 5)
    #expect(bench.look().isEmpty)
  }

  @Test func `a batch in order is used by its last chain`() throws {
    let bench = try Bench(startIndex: 65_534) { $0.inOrder = true }
    for round in 0..<6 {
      let heads = (0..<3).map { UInt16((3 * round + $0) & 3) }
      for head in heads { bench.write(Int(head), length: 64) }
      for head in heads { bench.offer(head) }
      #expect(bench.look().isEmpty)
      bench.use(UInt32(heads[2]), length: 20, standingFor: 3)
      #expect(bench.call(rang: true).isEmpty)
      #expect(bench.endTurn().isEmpty)
    }
  }

  @Test func `in order, chains come and go between two looks`() throws {
    let bench = try Bench { $0.inOrder = true }
    for id in 0..<4 { bench.write(id, length: 64) }
    bench.offer(0, 1, 2)
    bench.use(1, length: 5, standingFor: 2)
    bench.offer(3, 0)
    #expect(bench.look().isEmpty)
    bench.use(0, length: 5, standingFor: 3)
    #expect(bench.look().isEmpty)
  }

  @Test func `descriptors change their chains between two looks`() throws {
    let bench = try Bench()
    bench.write(0, length: 8, flags: Descriptor.isWritable | Descriptor.hasNext, next: 1)
    bench.write(1, length: 8)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.use(0, length: 8)
    bench.write(1, length: 8, flags: Descriptor.isWritable | Descriptor.hasNext, next: 0)
    bench.write(0, length: 8)
    bench.offer(1)
    #expect(bench.look().isEmpty)
  }

  @Test(arguments: 1...3) func `a driver writes entries before it publishes them`(ahead: Int) throws {
    let bench = try Bench()
    for index in 0..<4 { bench.write(index, length: 8) }
    bench.offer(0, 1, 2, 3)
    #expect(bench.look().isEmpty)
    for id in 1..<4 { bench.use(UInt32(id), length: 8) }
    #expect(bench.look().isEmpty)
    for head in 1...ahead { bench.driver.offer(UInt16(head)) }
    for _ in 0..<4 { #expect(bench.look().isEmpty) }
    bench.driver.publish()
    bench.use(0, length: 8)
    for _ in 0..<4 { #expect(bench.look().isEmpty) }
  }

  /// How often it looks, and whether chains have more than one descriptor, come into being before they are published, and return
  /// in any order.
  @Test(arguments: [1, 2, 5, 20], [4, 8, 16])
  func `honest rings are not found wrong however seldom they are looked at`(pause: Int, size: Int) throws {
    for seed in 0..<400 as Range<UInt64> {
      var random = SeededRandom(seed: seed)
      let bench = try Bench(size: size, startIndex: UInt16(truncatingIfNeeded: random.next()))
      bench.driver.setAvailFlags(1)
      bench.setUsedFlags(1)
      let longest = seed % 2 == 0 ? 1 : 3
      var free = Array(0..<size)
      var flying: [[Int]] = []
      var written: [[Int]] = []
      var returned: [[Int]] = []
      for step in 0..<300 {
        switch random.below(5) {
        case 0, 1:
          let count = 1 + random.below(longest)
          guard free.count >= count else { break }
          let ids = (0..<count).map { _ in free.remove(at: random.below(free.count)) }
          for (place, id) in ids.enumerated() {
            let isLast = place == count - 1
            bench.write(
              id, length: UInt32(8 + random.below(50)),
              flags: Descriptor.isWritable | (isLast ? 0 : Descriptor.hasNext),
              next: isLast ? 0 : UInt16(ids[place + 1]))
          }
          bench.driver.offer(UInt16(ids[0]))
          written.append(ids)
          if random.oneIn(3) { break }
          bench.driver.publish()
          flying += written
          written = []
        case 2, 3:
          guard !flying.isEmpty else { break }
          let ids = flying.remove(at: random.below(flying.count))
          bench.use(UInt32(ids[0]), length: 0)
          returned.append(ids)
        default:
          free += returned.joined()
          returned = []
        }
        guard random.oneIn(pause) else { continue }
        let found = bench.look()
        #expect(found.isEmpty, "seed \(seed), step \(step)")
        if !found.isEmpty { return }
      }
    }
  }

  // MARK: The driver

  @Test func `avail.idx goes back`() throws {
    let bench = try Bench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.driver.publish(index: 0)
    bench.expect(.availableIndex, in: bench.look())
  }

  @Test func `more chains are offered than the ring has descriptors`() throws {
    let bench = try Bench()
    bench.driver.publish(index: 5)
    bench.expect(.availableIndex, in: bench.look())
  }

  @Test func `a head beyond the table`() throws {
    let bench = try Bench()
    bench.offer(4)
    bench.expect(.head, in: bench.look())
  }

  @Test func `a chain in flight is offered again`() throws {
    let bench = try Bench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.offer(0)
    bench.expect(.inFlight, in: bench.look())
  }

  @Test func `two chains share a descriptor`() throws {
    let bench = try Bench()
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 2)
    bench.write(1, length: 64, flags: Descriptor.hasNext, next: 2)
    bench.write(2, length: 64)
    bench.offer(0, 1)
    bench.expect(.inFlight, in: bench.look())
  }

  @Test func `a chain that leads out of the table`() throws {
    let bench = try Bench()
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 4)
    bench.offer(0)
    bench.expect(.next, in: bench.look())
  }

  @Test func `a chain that leads to itself`() throws {
    let bench = try Bench()
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 1)
    bench.write(1, length: 64, flags: Descriptor.hasNext, next: 0)
    bench.offer(0)
    bench.expect(.chainLength, in: bench.look())
  }

  @Test func `a buffer to read behind one to write`() throws {
    let bench = try Bench()
    bench.write(0, length: 64, flags: Descriptor.hasNext | Descriptor.isWritable, next: 1)
    bench.write(1, length: 64, flags: 0)
    bench.offer(0)
    bench.expect(.readableFirst, in: bench.look())
  }

  @Test(arguments: [(0, 16), (0, 17), (0, 80), (1, 32)] as [(UInt16, UInt32)])
  func `an indirect table that is none`(flags: UInt16, length: UInt32) throws {
    let isNegotiated = length != 16
    let bench = try Bench { $0.indirect = isNegotiated }
    bench.write(0, length: length, flags: Descriptor.isIndirect | flags)
    bench.offer(0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test func `a table in a table`() throws {
    let bench = try Bench { $0.indirect = true }
    bench.store(Descriptor(address: Bench.base, length: 16, flags: Descriptor.isIndirect))
    bench.write(0, length: 16, flags: Descriptor.isIndirect)
    bench.offer(0)
    bench.expect(.indirect, in: bench.look())
  }

  @Test func `descriptors are not taken in table order`() throws {
    let bench = try Bench { $0.inOrder = true }
    bench.write(1, length: 64)
    bench.offer(1)
    bench.expect(.tableOrder, in: bench.look())
  }

  @Test func `a descriptor is left out in table order`() throws {
    let bench = try Bench { $0.inOrder = true }
    bench.write(0, length: 64, flags: Descriptor.hasNext, next: 2)
    bench.write(2, length: 64)
    bench.offer(0)
    bench.expect(.tableOrder, in: bench.look())
  }

  @Test func `a descriptor that the device has changes`() throws {
    let bench = try Bench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.write(0, length: 65)
    bench.expect(.changed, in: bench.look())
  }

  @Test func `a descriptor changes and its chain is returned before it is compared`() throws {
    let bench = try Bench(size: 64)
    for index in 0..<64 { bench.write(index, length: 64) }
    for index in 0..<64 { bench.driver.offer(UInt16(index)) }
    bench.driver.publish()
    #expect(bench.look().isEmpty)
    bench.write(50, length: 65)
    bench.use(50, length: 64)
    bench.expect(.changed, in: bench.taking())
  }

  @Test(arguments: [false, true]) func `an entry of a table that the device has changes`(isReturned: Bool) throws {
    let bench = try Bench {
      $0.indirect = true
      $0.saysWhatItTakes = true
    }
    bench.store(Descriptor(address: Bench.base + 256, length: 64))
    bench.write(0, length: 16, flags: Descriptor.isIndirect)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.store(Descriptor(address: Bench.base + 512, length: 9))
    if isReturned { bench.use(0, length: 0) }
    bench.expect(.changed, in: bench.look())
  }

  @Test func `an available entry that the device has changes`() throws {
    let bench = try Bench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.driver.availIndex = 0
    bench.driver.offer(3)
    bench.expect(.changed, in: bench.look())
  }

  @Test func `a driver with event indices sets flags`() throws {
    let bench = try Bench { $0.eventIndex = true }
    bench.driver.setAvailFlags(1)
    bench.expect(.driverFlags, in: bench.look())
  }

  @Test(arguments: [true, false], [true, false])
  func `a doorbell is not rung`(eventIndex: Bool, isFirst: Bool) throws {
    let bench = try Bench { $0.eventIndex = eventIndex }
    if !isFirst { #expect(bench.kick(rang: true).isEmpty) }
    bench.offerOne()
    bench.expect(.kick, in: bench.kick(rang: false))
  }

  @Test func `a doorbell that is not wanted is not missed`() throws {
    let bench = try Bench { $0.eventIndex = true }
    #expect(bench.kick(rang: true).isEmpty)
    bench.setAvailEvent(7)
    bench.offerOne()
    #expect(bench.kick(rang: false).isEmpty)
  }

  @Test func `a turn ends with a chain of which nobody knows`() throws {
    let bench = try Bench()
    #expect(bench.kick(rang: true).isEmpty)
    bench.offerOne()
    bench.expect(.kickAtTurnEnd, in: bench.endTurn())
  }

  @Test(arguments: [(0, 2), (10, 1)] as [(Int, UInt8)])
  func `a header to transmit says what only a device says`(offset: Int, value: UInt8) throws {
    let bench = try Bench { $0.direction = .transmit }
    bench.store(value, at: offset)
    bench.offerOne()
    bench.expect(.transmitHeader, in: bench.look())
  }

  @Test func `a frame to transmit is shorter than its header`() throws {
    let bench = try Bench { $0.direction = .transmit }
    bench.write(0, length: 10, flags: 0)
    bench.offer(0)
    bench.expect(.transmitHeader, in: bench.look())
  }

  @Test(arguments: [(0, 0xff), (10, 1)] as [(Int, UInt8)])
  func `a header in two descriptors says what only a device says`(offset: Int, value: UInt8) throws {
    let bench = try Bench { $0.direction = .transmit }
    bench.store(value, at: offset)
    bench.write(0, length: 6, flags: Descriptor.hasNext, next: 1)
    bench.write(1, length: 70, flags: 0, at: Bench.base + 6)
    bench.offer(0)
    bench.expect(.transmitHeader, in: bench.look())
  }

  // MARK: The device

  @Test func `used.idx goes beyond what was offered`() throws {
    let bench = try Bench()
    bench.offerOne()
    bench.use(0, length: 0)
    bench.use(0, length: 0)
    bench.expect(.usedIndex, in: bench.look())
  }

  @Test func `used.idx goes back`() throws {
    let bench = try Bench()
    bench.offerOne()
    bench.use(0, length: 0)
    #expect(bench.look().isEmpty)
    bench.usedIndex = 0
    bench.expect(.usedIndex, in: bench.look())
  }

  @Test(arguments: [1, 4, .max] as [UInt32]) func `a chain is used that the device does not have`(id: UInt32) throws {
    let bench = try Bench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.use(id, length: 0)
    bench.expect(.usedChain, in: bench.look())
  }

  @Test func `chains are not used in order`() throws {
    let bench = try Bench { $0.inOrder = true }
    for id in 0..<2 { bench.write(id, length: 64) }
    bench.offer(0, 1)
    #expect(bench.look().isEmpty)
    bench.use(1, length: 5)
    bench.expect(.usedOrder, in: bench.look())
  }

  @Test func `more bytes are used than could be written`() throws {
    let bench = try Bench()
    bench.write(0, length: 64, flags: Descriptor.isWritable)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.use(0, length: 65)
    bench.expect(.usedLength, in: bench.look())
  }

  @Test func `a device with event indices sets flags`() throws {
    let bench = try Bench { $0.eventIndex = true }
    bench.setUsedFlags(1)
    bench.expect(.deviceFlags, in: bench.look())
  }

  @Test(arguments: [true, false], [true, false])
  func `an interrupt is not sent`(eventIndex: Bool, isFirst: Bool) throws {
    let bench = try Bench { $0.eventIndex = eventIndex }
    if !isFirst { #expect(bench.call(rang: true).isEmpty) }
    bench.offerOne()
    bench.use(0, length: 0)
    bench.expect(.call, in: bench.call(rang: false))
  }

  @Test func `a turn ends with a used chain of which nobody knows`() throws {
    let bench = try Bench()
    #expect(bench.call(rang: true).isEmpty)
    bench.offerOne()
    bench.use(0, length: 0)
    bench.expect(.callAtTurnEnd, in: bench.endTurn())
  }

  @Test(arguments: [(0, true), (2, false), (2, true)] as [(UInt16, Bool)])
  func `a received frame lies in other buffers than it says`(buffers: UInt16, merged: Bool) throws {
    let bench = try Bench {
      $0.direction = .receive
      $0.mergedBuffers = merged
    }
    bench.write(0, length: 64, flags: Descriptor.isWritable)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.store(UInt8(buffers), at: 10)
    bench.use(0, length: 64)
    bench.expect(.receivedBuffers, in: bench.call(rang: true))
  }

  @Test func `a received frame is looked at whenever its driver has not taken it`() throws {
    let bench = try Bench {
      $0.direction = .receive
      $0.saysWhatItTakes = true
    }
    bench.write(0, length: 64, flags: Descriptor.isWritable)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.store(3, at: 10)
    bench.use(0, length: 64)
    bench.expect(.receivedBuffers, in: bench.look())
  }

  /// The first buffer came and went between two looks: what is in the second is no header.
  @Test func `a merged frame whose beginning was not seen is not judged`() throws {
    let bench = try Bench {
      $0.direction = .receive
      $0.mergedBuffers = true
      $0.saysWhatItTakes = true
    }
    for index in 0..<3 { bench.write(index, length: 64) }
    bench.offer(1)
    bench.offer(2)
    #expect(bench.look().isEmpty)
    bench.offer(0)
    bench.store(14, at: 10)
    bench.use(0, length: 64)
    bench.use(1, length: 64)
    #expect(bench.look().isEmpty)
  }

  @Test func `every clause says where it stands, and what is checked is counted`() throws {
    #expect(RingClause.allCases.allSatisfy { $0.citation(.split)?.hasPrefix("VIRTIO 1.4 §") == true })
    let before = RingMonitor.checks(of: .head)
    do {
      let bench = try Bench()
      bench.offerOne()
      #expect(bench.look().isEmpty)
    }
    #expect(RingMonitor.checks(of: .head) > before)
  }
}

/// A ring, of four descriptors unless it says otherwise, and its monitor; both sides are the test's to play.
@safe private final class Bench {
  /// Device address of `frames`.
  static let base: UInt64 = 0x1_0000

  let driver: LyingDriverRing
  /// Where buffers point: 4 KiB.
  private let frames: UnsafeMutableRawPointer
  private let block: UnsafeMutableRawPointer
  private let layout: RingLayout
  private let monitor = RingMonitor()
  private let identity: UInt
  private let size: Int
  private var usedPosition: UInt16

  init(size: Int = 4, startIndex: UInt16 = 0, _ configure: (inout MonitoredRing) -> Void = { _ in }) throws {
    self.size = size
    layout = try RingLayout(.split, size: size)
    unsafe block = .allocate(byteCount: layout.totalBytes, alignment: 64)
    unsafe frames = .allocate(byteCount: 4096, alignment: 64)
    unsafe frames.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
    driver = unsafe try LyingDriverRing(size: size, block: block, startIndex: startIndex)
    usedPosition = startIndex
    var ring = unsafe MonitoredRing("the ring", .split, try RingAreas(.split, size: size, block: block))
    ring.startIndex = startIndex
    let start = unsafe UInt(bitPattern: frames)
    unsafe ring.place = { address, length in
      address >= Self.base && Int(address - Self.base) + length <= 4096
        ? unsafe UnsafeRawPointer(bitPattern: start + UInt(address - Self.base)) : nil
    }
    configure(&ring)
    identity = ring.identity
    monitor.watch(ring)
  }

  deinit {
    unsafe block.deallocate()
    unsafe frames.deallocate()
  }

  // MARK: What the sides do

  func write(
    _ index: Int, length: UInt32, flags: UInt16 = LyingDriverRing.Descriptor.isWritable, next: UInt16 = 0,
    at address: UInt64 = Bench.base
  ) {
    driver.write(.init(address: address, length: length, flags: flags, next: next), at: index)
  }

  /// A buffer of 64 bytes in the first descriptor.
  func offerOne() {
    write(0, length: 64)
    offer(0)
  }

  func offer(_ heads: UInt16...) {
    for head in heads { driver.offer(head) }
    driver.publish()
  }

  /// Writes into what buffers point to.
  func store(_ byte: UInt8, at offset: Int) { unsafe frames.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self) }

  /// Puts a descriptor where buffers point to.
  func store(_ descriptor: LyingDriverRing.Descriptor) { unsafe LyingDriverRing.write(descriptor, to: frames) }

  private var used: UnsafeMutableRawPointer { unsafe block + layout.deviceOffset }

  var usedIndex: UInt16 {
    get { unsafe (used + 2).load(as: UInt16.self) }
    set { unsafe (used + 2).storeBytes(of: newValue, as: UInt16.self) }
  }

  /// Uses a chain, or with IN_ORDER so many of which this is the last.
  func use(_ id: UInt32, length: UInt32, standingFor count: UInt16 = 1) {
    let place = unsafe used + 4 + 8 * (Int(usedPosition) & (size - 1))
    unsafe place.storeBytes(of: id, as: UInt32.self)
    unsafe (place + 4).storeBytes(of: length, as: UInt32.self)
    usedPosition &+= count
    usedIndex = usedPosition
  }

  func setUsedFlags(_ flags: UInt16) { unsafe used.storeBytes(of: flags, as: UInt16.self) }
  func setAvailEvent(_ event: UInt16) { unsafe (used + 4 + 8 * size).storeBytes(of: event, as: UInt16.self) }

  // MARK: What the monitor says

  func look() -> [RingViolation] { monitor.look() }
  func endTurn() -> [RingViolation] { monitor.endTurn() }
  func taking() -> [RingViolation] { monitor.noteTaking(identity) }
  func kick(rang: Bool) -> [RingViolation] { monitor.noteKick(identity, rang: rang) }
  func call(rang: Bool) -> [RingViolation] { monitor.noteCall(identity, rang: rang) }

  func expect(_ clause: RingClause, in found: [RingViolation], _ location: SourceLocation = #_sourceLocation) {
    #expect(found.map(\.clause) == [clause], "\(found)", sourceLocation: location)
    let citation = clause.citation(.split) ?? ""
    #expect(found.first?.description.hasSuffix("(\(citation))") == true, sourceLocation: location)
    // What was found wrong once is not found again.
    #expect(monitor.count == 0, sourceLocation: location)
  }
}
