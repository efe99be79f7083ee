import NetdevTesting
import Testing
import Virtio

/// Each clause that a monitor knows of a split ring, broken once: by a driver that lies in `SplitDriverClauseTests.swift`, by a device
/// that does in `SplitDeviceClauseTests.swift`.
@Suite struct SplitRingMonitorTests {
  typealias Descriptor = LyingDriverRing.Descriptor

  @Test func `honest sides are not found wrong, and indices wrap`() throws {
    let bench = try SplitBench(startIndex: 65_533)
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
    let bench = try SplitBench()
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
    let bench = try SplitBench(startIndex: 65_534) { $0.inOrder = true }
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
    let bench = try SplitBench { $0.inOrder = true }
    for id in 0..<4 { bench.write(id, length: 64) }
    bench.offer(0, 1, 2)
    bench.use(1, length: 5, standingFor: 2)
    bench.offer(3, 0)
    #expect(bench.look().isEmpty)
    bench.use(0, length: 5, standingFor: 3)
    #expect(bench.look().isEmpty)
  }

  @Test func `descriptors change their chains between two looks`() throws {
    let bench = try SplitBench()
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
    let bench = try SplitBench()
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
      let bench = try SplitBench(size: size, startIndex: UInt16(truncatingIfNeeded: random.next()))
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

  @Test func `every clause says where it stands, and what is checked is counted`() throws {
    #expect(RingClause.allCases.allSatisfy { $0.citation(.split)?.hasPrefix("VIRTIO 1.4 §") == true })
    let before = RingMonitor.checks(of: .head)
    do {
      let bench = try SplitBench()
      bench.offerOne()
      #expect(bench.look().isEmpty)
    }
    #expect(RingMonitor.checks(of: .head) > before)
  }
}
