import Testing
import Virtio

// Kicks and interrupts (driver rules 10, 12 to 14).
extension SplitDriverRingTests {
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
        #expect(used == nil && !ring.hasUsed)
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
}
