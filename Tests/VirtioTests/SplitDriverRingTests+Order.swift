import NetdevTesting
import RingThreads
import Testing
import Virtio

// Chains, indirect tables and IN_ORDER (driver rules 17, 18).
extension SplitDriverRingTests {
  @Test("§2.7.4.2: a chain has its readable buffers first, linked by NEXT; freed whole")
  func chain() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.driver()
    let readable = [RingBuffer(address: 1, length: 10), RingBuffer(address: 2, length: 20)]
    let writable = [RingBuffer(address: 3, length: 30)]
    let isAdded = try ring.add(readable: readable.span, writable: writable.span, token: 42)
    #expect(isAdded && ring.freeCount == 5)
    ring.publish()
    #expect(block.availEntry(0) == 0)
    #expect(block.descriptor(0) == RawDescriptor(1, 10, RawDescriptor.next, next: 1))
    #expect(block.descriptor(1) == RawDescriptor(2, 20, RawDescriptor.next, next: 2))
    #expect(block.descriptor(2) == RawDescriptor(3, 30, RawDescriptor.write))
    block.setUsed(0, id: 0, length: 30)
    block.usedIdx = 1
    let used = try ring.nextUsed()
    #expect(used == UsedBuffer(token: 42, written: 30) && ring.freeCount == 8)
  }

  @Test("The caller's mistakes leave the ring as it was")
  func callersErrors() throws {
    let block = try RingBlock(size: 4)
    var ring = try block.driver()
    let none: [RingBuffer] = []
    let five = [RingBuffer](repeating: RingBuffer(address: 0, length: 1), count: 5)
    let huge = [RingBuffer](repeating: RingBuffer(address: 0, length: .max), count: 2)
    let empty = violation { () throws(RingError) in
      _ = try ring.add(readable: none.span, writable: none.span, token: 0)
    }
    let long = violation { () throws(RingError) in
      _ = try ring.add(readable: five.span, writable: none.span, token: 0)
    }
    let large = violation { () throws(RingError) in
      _ = try ring.add(readable: none.span, writable: huge.span, token: 0)
    }
    #expect(empty == RingError(.chainEmpty, 0))
    #expect(long == RingError(.chainTooLong, 5))
    #expect(large == RingError(.chainTooLarge, 2 * UInt64(UInt32.max)))
    #expect(!ring.isBroken && ring.freeCount == 4 && ring.unpublished == 0)
    _ = ring.add(address: 0, length: 1, writable: true, token: 1)
    let noRoom = try ring.add(readable: five.span.extracting(0..<4), writable: none.span, token: 2)
    #expect(!noRoom && ring.freeCount == 3)
    let early = violation { () throws(RingError) in try ring.reset() }
    #expect(early == RingError(.outstanding, 1))
  }

  @Test(
    "Driver rule 17: an indirect table is sequential, its reference has INDIRECT alone, and it stays below the size")
  func indirect() throws {
    let block = try RingBlock(size: 4)
    let tables = unsafe IndirectTables(host: block.buffers, address: RingBlock.bufferBase, capacity: 8)
    var ring = try block.driver { $0.indirect = tables }
    let readable = [RingBuffer(address: 1, length: 10), RingBuffer(address: 2, length: 20)]
    let writable = [RingBuffer(address: 3, length: 30)]
    for _ in 0..<4 {
      let isAdded = try ring.add(readable: readable.span, writable: writable.span, token: 9)
      #expect(isAdded)
    }
    for head in 0..<4 {
      let reference = RawDescriptor(RingBlock.bufferBase + UInt64(128 * head), 48, RawDescriptor.indirect)
      #expect(block.descriptor(UInt16(head)) == reference)
      let table = (0..<3).map { unsafe RawDescriptor(block.buffers + 128 * head + 16 * $0) }
      #expect(
        table == [
          RawDescriptor(1, 10, RawDescriptor.next, next: 1), RawDescriptor(2, 20, RawDescriptor.next, next: 2),
          RawDescriptor(3, 30, RawDescriptor.write),
        ])
    }
    ring.publish()
    block.setUsed(0, id: 2, length: 30)
    block.usedIdx = 1
    let used = try ring.nextUsed()
    #expect(used == UsedBuffer(token: 9, written: 30) && ring.freeCount == 1)
    // As many as the ring has: in the ring itself, or nowhere (trap 8).
    let four = [RingBuffer](repeating: RingBuffer(address: 0, length: 1), count: 4)
    let isAdded = try ring.add(readable: four.span, writable: [RingBuffer]().span, token: 1)
    #expect(!isAdded)
    // A single buffer needs no table.
    let single = try ring.add(readable: writable.span, writable: [RingBuffer]().span, token: 1)
    #expect(single)
    #expect(block.descriptor(2) == RawDescriptor(3, 30))
  }

  @Test("Driver rule 18: with IN_ORDER descriptors are taken in table order, round and round, and NEXT is x + 1")
  func inOrderTaking() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.driver { $0.inOrder = true }
    var next: UInt16 = 0
    var used: UInt16 = 0
    for round in 0..<1000 {
      let length = round % 3 + 1
      let parts = [RingBuffer](repeating: RingBuffer(address: 0, length: 5), count: length)
      let isAdded = try ring.add(readable: parts.span, writable: [RingBuffer]().span, token: UInt64(round))
      #expect(isAdded)
      #expect(block.availEntry(UInt16(truncatingIfNeeded: round)) == next)
      for step in 0..<length - 1 {
        let id = (next + UInt16(step)) % 8
        #expect(block.descriptor(id).flags & RawDescriptor.next != 0)
        #expect(block.descriptor(id).next == (id + 1) % 8)
      }
      ring.publish()
      block.setUsed(used, id: UInt32(next), length: 0)
      next = (next + UInt16(length)) % 8
      used &+= 1
      block.usedIdx = used
      let buffer = try ring.nextUsed()
      #expect(buffer?.token == UInt64(round))
    }
  }

  @Test("Driver rule 18: one element returns a batch; what was skipped was used completely")
  func inOrderBatches() throws {
    let block = try RingBlock(size: 16)
    var ring = try block.driver {
      $0.inOrder = true
      $0.startIndex = 65530
    }
    var random = SeededRandom(seed: 18)
    let output = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: 16)
    defer { unsafe output.deallocate() }
    var expected: [UsedBuffer] = []
    var heads: [UInt16] = []
    var sent: UInt64 = 0
    var availIndex: UInt16 = 65530
    var usedIndex: UInt16 = 65530
    for _ in 0..<20_000 {
      while ring.freeCount >= 3, random.next() % 4 != 0 {
        let parts = [RingBuffer](
          repeating: RingBuffer(address: 0, length: UInt32(random.next() % 100)), count: Int(random.next() % 3) + 1)
        let isAdded = try ring.add(readable: [RingBuffer]().span, writable: parts.span, token: sent)
        #expect(isAdded)
        expected.append(UsedBuffer(token: sent, written: parts.reduce(0) { $0 + $1.length }))
        heads.append(block.availEntry(availIndex))
        availIndex &+= 1
        sent += 1
      }
      ring.publish()
      guard !heads.isEmpty else { continue }
      let batch = Int(random.next() % UInt64(heads.count)) + 1
      expected[batch - 1].written /= 2
      block.setUsed(usedIndex, id: UInt32(heads[batch - 1]), length: expected[batch - 1].written)
      usedIndex &+= UInt16(batch)
      block.usedIdx = usedIndex
      var taken: [UsedBuffer] = []
      if random.next() & 1 == 0 {
        let count = try unsafe ring.reap(into: output, max: 16)
        taken = (0..<count).map { unsafe output[$0] }
      } else {
        while let used = try ring.nextUsed() { taken.append(used) }
      }
      #expect(taken == Array(expected[..<batch]))
      expected.removeFirst(batch)
      heads.removeFirst(batch)
    }
  }

  @Test("Driver rule 18: an id further ahead than used.idx went breaks the ring")
  func inOrderLies() throws {
    try withThree({ $0.inOrder = true }) { ring, block in
      block.setUsed(0, id: 2, length: 0)
      block.usedIdx = 2
      expectBroken(&ring, by: RingError(.usedOutOfOrder, 2), tokens: [1000, 1001, 1002])
    }
    try withThree({ $0.inOrder = true }) { ring, block in
      block.setUsed(0, id: 7, length: 0)
      block.usedIdx = 1
      expectBroken(&ring, by: RingError(.usedIdNotOutstanding, 7), tokens: [1000, 1001, 1002])
    }
    try withThree({ $0.inOrder = true }) { ring, block in
      block.setUsed(0, id: 1, length: 101)
      block.usedIdx = 2
      expectBroken(&ring, by: RingError(.usedLengthTooLong, 101), tokens: [1000, 1001, 1002])
    }
  }
}
