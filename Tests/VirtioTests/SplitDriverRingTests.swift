import Testing
import Virtio

/// The driver side against a device that lies in the shared memory.
@Suite struct SplitDriverRingTests {
  /// A ring of eight with three writable buffers of 100 bytes out, tokens 1000 to 1002 at heads 0 to 2.
  private func withThree(
    _ change: (inout SplitDriverRing.Configuration) -> Void = { _ in },
    _ body: (inout SplitDriverRing, RingBlock) throws -> Void
  ) throws {
    let block = try RingBlock(size: 8)
    var ring = try block.driver(change)
    for token in 1000..<1003 as Range<UInt64> {
      let isAdded = ring.add(address: RingBlock.bufferBase, length: 100, writable: true, token: token)
      #expect(isAdded)
    }
    ring.publish()
    try body(&ring, block)
  }

  /// What the device writes breaks the ring by this rule, is thrown again and again, and leaves the tokens to `drain`.
  private func expectBroken(
    _ ring: inout SplitDriverRing, by error: RingError, tokens: [UInt64]
  ) {
    let first = violation { () throws(RingError) in _ = try ring.nextUsed() }
    let second = violation { () throws(RingError) in _ = try ring.nextUsed() }
    let pending = violation { () throws(RingError) in _ = try ring.pendingUsed() }
    let isAdded = ring.add(address: 0, length: 1, writable: true, token: 1)
    let needsKick = ring.needsKick()
    var drained: [UInt64] = []
    let count = ring.drain { drained.append($0) }
    #expect(first == error)
    #expect(second == error)
    #expect(pending == error)
    #expect(ring.failure == error)
    #expect(!isAdded && !needsKick)
    #expect(drained == tokens && count == tokens.count)
    let again = ring.drain { _ in Issue.record("drained twice") }
    #expect(again == 0)
    // After the reset the ring works.
    let reset = violation { () throws(RingError) in try ring.reset() }
    #expect(reset == nil && ring.failure == nil && ring.freeCount == 8)
    let works = ring.add(address: 0, length: 1, writable: true, token: 1)
    #expect(works)
  }

  @Test("§2.7.13: a chain is in the table before it is in the ring, and in the ring before its index moves")
  func adding() throws {
    try withThree { ring, block in
      #expect(block.availIdx == 3)
      for index: UInt16 in 0..<3 {
        #expect(block.availEntry(index) == index)
        #expect(block.descriptor(index) == RawDescriptor(RingBlock.bufferBase, 100, RawDescriptor.write))
      }
      let isAdded = ring.add(address: 7, length: 9, writable: false, token: 5)
      #expect(isAdded && block.availIdx == 3 && ring.unpublished == 1 && ring.inFlight == 3)
      #expect(block.descriptor(3) == RawDescriptor(7, 9))
      ring.publish()
      #expect(block.availIdx == 4 && ring.inFlight == 4 && ring.publishedIndex == 4)
    }
  }

  @Test("A full ring says so, and loses nothing")
  func full() throws {
    let block = try RingBlock(size: 4)
    var ring = try block.driver()
    let added = ring.add(count: 9, writable: true) { RingBuffer(address: UInt64($0), length: 1, token: UInt64($0)) }
    #expect(added == 4 && ring.freeCount == 0)
    let one = ring.add(address: 0, length: 1, writable: true, token: 9)
    #expect(!one)
    var tokens: [UInt64] = []
    ring.drain { tokens.append($0) }
    #expect(tokens == [0, 1, 2, 3])
  }

  // MARK: Rule 16

  @Test("Driver rule 16: an id beyond the ring breaks it", arguments: [8, 65536, 65537, .max] as [UInt32])
  func idOutOfRange(id: UInt32) throws {
    try withThree { ring, block in
      block.setUsed(0, id: id, length: 10)
      block.usedIdx = 1
      expectBroken(&ring, by: RingError(.usedIdOutOfRange, UInt64(id)), tokens: [1000, 1001, 1002])
    }
  }

  @Test("Driver rule 16: an id that was never issued breaks the ring")
  func idNeverIssued() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 5, length: 10)
      block.usedIdx = 1
      expectBroken(&ring, by: RingError(.usedIdNotOutstanding, 5), tokens: [1000, 1001, 1002])
    }
  }

  @Test("Driver rule 16: an id used twice breaks the ring; the first use counts, once")
  func idDuplicate() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 1, length: 10)
      block.setUsed(1, id: 1, length: 10)
      block.usedIdx = 2
      let used = try ring.nextUsed()
      #expect(used == UsedBuffer(token: 1001, written: 10))
      expectBroken(&ring, by: RingError(.usedIdNotOutstanding, 1), tokens: [1000, 1002])
    }
  }

  @Test("Driver rule 16: the middle of a chain is no head")
  func idMiddle() throws {
    try withThree { ring, block in
      let parts = [RingBuffer(address: 0, length: 1), RingBuffer(address: 0, length: 2)]
      let isAdded = try ring.add(readable: parts.span, writable: parts.span, token: 7)
      #expect(isAdded)
      ring.publish()
      block.setUsed(0, id: 4, length: 0)
      block.usedIdx = 1
      expectBroken(&ring, by: RingError(.usedIdNotOutstanding, 4), tokens: [1000, 1001, 1002, 7])
    }
  }

  @Test("Driver rule 16: a length beyond the writable bytes breaks the ring", arguments: [101, 4096, .max] as [UInt32])
  func lengthTooLong(length: UInt32) throws {
    try withThree { ring, block in
      block.setUsed(0, id: 0, length: length)
      block.usedIdx = 1
      expectBroken(&ring, by: RingError(.usedLengthTooLong, UInt64(length)), tokens: [1000, 1001, 1002])
    }
  }

  @Test("Driver rule 16: nothing was written into what was only readable")
  func lengthOfReadable() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.driver()
    _ = ring.add(address: 0, length: 64, writable: false, token: 3)
    ring.publish()
    block.setUsed(0, id: 0, length: 1)
    block.usedIdx = 1
    expectBroken(&ring, by: RingError(.usedLengthTooLong, 1), tokens: [3])
  }

  @Test(
    "Driver rule 16: used.idx moves by no more than what is in flight", arguments: [4, 9, 32768, 65535] as [UInt16])
  func usedIndexJump(index: UInt16) throws {
    try withThree { ring, block in
      // What is added and not published is not in flight either.
      _ = ring.add(address: 0, length: 1, writable: true, token: 1)
      block.usedIdx = index
      expectBroken(&ring, by: RingError(.usedIndexJump, UInt64(index)), tokens: [1000, 1001, 1002, 1])
    }
  }

  @Test("Driver rule 16: used.idx going backwards breaks the ring")
  func usedIndexBack() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 2, length: 0)
      block.usedIdx = 1
      _ = try ring.nextUsed()
      block.usedIdx = 0
      expectBroken(&ring, by: RingError(.usedIndexJump, 0), tokens: [1000, 1001])
    }
  }

  @Test("Driver rule 16: a batch returns what came before a violation, then throws")
  func batchBeforeViolation() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 2, length: 1)
      block.setUsed(1, id: 99, length: 1)
      block.usedIdx = 2
      let output = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: 8)
      defer { unsafe output.deallocate() }
      let count = try unsafe ring.reap(into: output, max: 8)
      #expect(count == 1)
      #expect(unsafe output[0] == UsedBuffer(token: 1002, written: 1))
      let error = violation { () throws(RingError) in _ = try unsafe ring.reap(into: output, max: 8) }
      #expect(error == RingError(.usedIdOutOfRange, 99))
      #expect(ring.failure == error)
    }
  }

  @Test("Shared tables are write-only to the driver: a device that rewrites them changes nothing")
  func tablesRewritten() throws {
    try withThree { ring, block in
      let parts = [RingBuffer(address: 1, length: 10), RingBuffer(address: 2, length: 20)]
      let isAdded = try ring.add(readable: parts.span, writable: parts.span, token: 77)
      #expect(isAdded)
      ring.publish()
      for id: UInt16 in 0..<8 { block.setDescriptor(id, RawDescriptor(.max, .max, 0xffff, next: 0xffff)) }
      for index: UInt16 in 0..<8 { block.setAvail(index, head: 0xffff) }
      block.setUsed(0, id: 3, length: 30)
      block.setUsed(1, id: 0, length: 100)
      block.usedIdx = 2
      let first = try ring.nextUsed()
      let second = try ring.nextUsed()
      #expect(first == UsedBuffer(token: 77, written: 30))
      #expect(second == UsedBuffer(token: 1000, written: 100))
      #expect(ring.freeCount == 6)
    }
  }

  // MARK: Rules 10, 12, 13, 14

  @Test("Driver rule 10: a kick when the event was passed, and only then")
  func kickByEvent() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.driver { $0.eventIndex = true }
    func addOne() { _ = ring.add(address: 0, length: 1, writable: true, token: 0) }
    addOne()
    ring.publish()
    let first = ring.needsKick()
    #expect(first, "the first kick is unconditional")
    let asked = ring.needsKick()
    #expect(!asked, "nothing new")
    block.availEvent = 3
    for expected in [false, false, true, false] {
      addOne()
      ring.publish()
      let needsKick = ring.needsKick()
      #expect(needsKick == expected)
    }
  }

  @Test("Driver rule 10: after 65535 chains without a question the kick is unconditional")
  func kickAfterMany() throws {
    for (count, expected) in [(65534, false), (65535, true), (65536, true), (70000, true)] {
      let block = try RingBlock(size: 8)
      var ring = try block.driver { $0.eventIndex = true }
      _ = ring.add(address: 0, length: 1, writable: true, token: 0)
      ring.publish()
      _ = ring.needsKick()
      block.setUsed(0, id: 0, length: 0)
      block.usedIdx = 1
      _ = try ring.nextUsed()
      // The event lies just behind: the formula alone says no, whatever was added.
      block.availEvent = 0
      for index in 0..<count {
        _ = ring.add(address: 0, length: 1, writable: true, token: 0)
        ring.publish()
        let used = UInt16(truncatingIfNeeded: index + 1)
        block.setUsed(used, id: UInt32(block.availEntry(used)), length: 0)
        block.usedIdx = used &+ 1
        _ = try ring.nextUsed()
      }
      let needsKick = ring.needsKick()
      #expect(needsKick == expected, "after \(count)")
    }
  }

  @Test("Driver rule 13: with EVENT_IDX the flags of the used ring are not looked at")
  func kickIgnoresFlags() throws {
    try withThree({ $0.eventIndex = true }) { ring, block in
      _ = ring.needsKick()
      block.usedFlags = 1
      block.availEvent = 3
      _ = ring.add(address: 0, length: 1, writable: true, token: 0)
      ring.publish()
      let needsKick = ring.needsKick()
      #expect(needsKick)
    }
  }

  @Test("Driver rule 13: with EVENT_IDX avail.flags stays 0; without it, bit 0 says no interrupts")
  func availFlags() throws {
    try withThree({ $0.eventIndex = true }) { ring, block in
      ring.disarmInterrupt()
      #expect(block.availFlags == 0)
      // Just behind: 65535 chains away.
      #expect(block.usedEvent == 65535)
    }
    try withThree { ring, block in
      ring.disarmInterrupt()
      #expect(block.availFlags == 1)
      let isPending = ring.armInterrupt()
      #expect(block.availFlags == 0 && !isPending)
    }
  }

  @Test("Without EVENT_IDX the low bit of used.flags alone suppresses kicks (§2.7.10)")
  func kickByFlags() throws {
    try withThree { ring, block in
      _ = ring.needsKick()
      for (flags, expected) in [(1, false), (0, true), (0xfffe, true), (0xffff, false)] as [(UInt16, Bool)] {
        block.usedFlags = flags
        _ = ring.add(address: 0, length: 1, writable: true, token: 0)
        ring.publish()
        let needsKick = ring.needsKick()
        #expect(needsKick == expected)
        if ring.freeCount == 0 { break }
      }
    }
  }

  @Test("Driver rule 12: arming looks again, and finds what was used before it")
  func armLooksAgain() throws {
    for eventIndex in [false, true] {
      try withThree({ $0.eventIndex = eventIndex }) { ring, block in
        let quiet = ring.armInterrupt()
        #expect(!quiet)
        block.setUsed(0, id: 0, length: 1)
        block.usedIdx = 1
        let isPending = ring.armInterrupt()
        #expect(isPending)
        let used = try ring.nextUsed()
        #expect(used?.token == 1000)
        let after = ring.armInterrupt()
        #expect(!after)
      }
    }
  }

  @Test(
    "Invariant 2: a single send arms for the next chain; a batch for about three quarters, cut to what is in flight")
  func armDistance() throws {
    let block = try RingBlock(size: 16)
    var ring = try block.driver {
      $0.eventIndex = true
      $0.startIndex = 65534
    }
    _ = ring.add(count: 8, writable: true) { RingBuffer(address: 0, length: 1, token: UInt64($0)) }
    ring.publish()
    _ = ring.armInterrupt()
    #expect(block.usedEvent == 65534)
    _ = ring.armInterruptDelayed()
    #expect(block.usedEvent == UInt16(truncatingIfNeeded: 65534 + 5))
    _ = ring.armInterrupt(after: 1000)
    #expect(block.usedEvent == UInt16(truncatingIfNeeded: 65534 + 7))
    _ = ring.armInterrupt(after: -3)
    #expect(block.usedEvent == 65534)
    for index in 0..<5 {
      block.setUsed(65534 &+ UInt16(index), id: UInt32(block.availEntry(65534 &+ UInt16(index))), length: 0)
    }
    block.usedIdx = 65534 &+ 5
    let early = ring.armInterruptDelayed()
    #expect(!early, "five of six: the interrupt is still to come")
    block.usedIdx = 65534 &+ 6
    let pending = ring.armInterruptDelayed()
    #expect(pending)
  }

  @Test("Driver rule 14: spurious looks find nothing and break nothing")
  func spurious() throws {
    try withThree { ring, _ in
      for _ in 0..<1000 {
        let used = try ring.nextUsed()
        let pending = try ring.pendingUsed()
        #expect(used == nil && pending == 0)
      }
      #expect(ring.inFlight == 3)
    }
  }

  @Test("Attack: poisoned suppression fields do not trap", arguments: [0, 1, 0x7fff, 0x8000, 0xffff] as [UInt16])
  func poisonedSuppression(value: UInt16) throws {
    for eventIndex in [false, true] {
      try withThree({
        $0.eventIndex = eventIndex; $0.startIndex = 65533
      }) { ring, block in
        block.usedFlags = value
        block.availEvent = value
        _ = ring.needsKick()
        _ = ring.add(address: 0, length: 1, writable: true, token: 0)
        ring.publish()
        _ = ring.needsKick()
        block.usedIdx = value
        _ = ring.armInterrupt()
        _ = ring.armInterruptDelayed()
      }
    }
  }

  // MARK: Chains and rule 17

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

  // MARK: Rule 18

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

  // MARK: Rules 19, 22, 26

  @Test("Driver rule 19: a driver that sees an impossible frame breaks its ring by a rule of its own")
  func failedByOwner() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 0, length: 20)
      block.usedIdx = 1
      // The header said two buffers; only one is there.
      let pending = try ring.pendingUsed()
      #expect(pending == 1)
      ring.fail(RingError(.stopped, 2))
      expectBroken(&ring, by: RingError(.stopped, 2), tokens: [1000, 1001, 1002])
    }
  }

  @Test("Driver rules 22 and 26: what a device writes after the reset reaches nobody")
  func lateWrites() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 1, length: 50)
      block.usedIdx = 1
      var tokens: [UInt64] = []
      if let used = try ring.nextUsed() { tokens.append(used.token) }
      ring.drain { tokens.append($0) }
      // Late: after the reset was confirmed.
      block.setUsed(1, id: 0, length: 50)
      block.usedIdx = 2
      let error = violation { () throws(RingError) in _ = try ring.nextUsed() }
      #expect(error?.rule == .drained)
      try ring.reset(startIndex: 65530)
      #expect(block.usedIdx == 65530 && block.availIdx == 65530)
      let used = try ring.nextUsed()
      #expect(used == nil)
      #expect(tokens.sorted() == [1000, 1001, 1002], "each exactly once")
    }
  }
}
