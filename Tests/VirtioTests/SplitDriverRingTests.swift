import RingThreads
import Testing
import Virtio

/// The driver side against a device that lies in the shared memory.
@Suite struct SplitDriverRingTests {
  /// A ring of eight with three writable buffers of 100 bytes out, tokens 1000 to 1002 at heads 0 to 2.
  func withThree(
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
  func expectBroken(
    _ ring: inout SplitDriverRing, by error: RingError, tokens: [UInt64]
  ) {
    let first = violation { () throws(RingError) in _ = try ring.nextUsed() }
    let second = violation { () throws(RingError) in _ = try ring.nextUsed() }
    let pending = violation { () throws(RingError) in try ring.look() }
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

  @Test("Driver rule 19: a driver that sees an impossible frame breaks its ring by a rule of its own")
  func failedByOwner() throws {
    try withThree { ring, block in
      block.setUsed(0, id: 0, length: 20)
      block.usedIdx = 1
      // The header said two buffers; only one is there.
      let isThere = ring.hasUsed
      #expect(isThere)
      ring.fail(RingError(.stopped, 2))
      expectBroken(&ring, by: RingError(.stopped, 2), tokens: [1000, 1001, 1002])
    }
  }

  @Test("Driver rules 22, 26: what a device writes after the reset reaches nobody")
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
