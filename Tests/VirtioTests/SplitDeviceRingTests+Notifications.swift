import NetdevTesting
import RingThreads
import Testing
import Virtio

// Calls and kicks, and IN_ORDER (device rules 12, 14; rule 18).
extension SplitDeviceRingTests {
  /// The driver offers a chain, and the device gives it back and publishes.
  private func serveOne(_ ring: inout SplitDeviceRing, _ block: RingBlock) throws {
    let memory = try block.memory()
    block.setDescriptor(0, RawDescriptor(base, 1))
    offer(block, 0, at: block.availIdx)
    let count = try ring.serve(max: 1, in: memory) { _ in 0 }
    #expect(count == 1)
    ring.publishUsed()
  }

  @Test("Device rule 12: the first notification after a start is unconditional, whatever used_event was left there")
  func firstCall() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.device { $0.eventIndex = true }
    block.usedEvent = 0x4000
    let before = ring.needsCall()
    #expect(!before, "nothing was used")
    try serveOne(&ring, block)
    let first = ring.needsCall()
    try serveOne(&ring, block)
    let second = ring.needsCall()
    #expect(first && !second)
    ring.reset()
    block.availIdx = 0
    try serveOne(&ring, block)
    let restarted = ring.needsCall()
    #expect(restarted)
  }

  @Test("§2.7.7: a call when used_event was passed; without EVENT_IDX unless bit 0 of the flags is set")
  func calls() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.device { $0.eventIndex = true }
    func push() throws -> Bool {
      try serveOne(&ring, block)
      return ring.needsCall()
    }
    _ = try push()
    block.usedEvent = 2
    block.availFlags = 1
    #expect(try [push(), push(), push()] == [false, true, false])

    let plain = try RingBlock(size: 8)
    var flags = try plain.device()
    func pushPlain() throws -> Bool {
      try serveOne(&flags, plain)
      return flags.needsCall()
    }
    _ = try pushPlain()
    var answers: [Bool] = []
    for value: UInt16 in [1, 0, 0xfffe] {
      plain.availFlags = value
      answers.append(try pushPlain())
    }
    #expect(answers == [false, true, true])
  }

  @Test("§2.7.10: arming for kicks looks again, and finds what was published before it")
  func armKick() throws {
    for eventIndex in [false, true] {
      let block = try RingBlock(size: 8)
      let memory = try block.memory()
      var ring = try block.device { $0.eventIndex = eventIndex }
      block.setDescriptor(0, RawDescriptor(base, 1))
      ring.disarmKick()
      #expect(block.usedFlags == (eventIndex ? 0 : 1))
      if eventIndex { #expect(block.availEvent == 65535) }
      let quiet = ring.armKick()
      #expect(!quiet && block.usedFlags == 0 && block.availEvent == 0)
      offer(block, 0)
      let pending = ring.armKick()
      #expect(pending)
      _ = try ring.begin()
      _ = try ring.next(in: memory)
      let after = ring.armKick()
      #expect(!after)
      if eventIndex { #expect(block.availEvent == 1) }
    }
  }

  @Test("Device rule 14: a million kicks of an empty ring cost nothing but time")
  func spurious() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.device()
    var seen = 0
    for _ in 0..<1_000_000 where try ring.begin() { seen += 1 }
    #expect(seen == 0 && ring.outstanding == 0)
  }

  @Test("Driver rule 18: with IN_ORDER the device returns the oldest chains by one element")
  func inOrder() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var driver = try block.driver { $0.inOrder = true }
    var device = try block.device { $0.inOrder = true }
    var received: UInt64 = 0
    var sent: UInt64 = 0
    var random = SeededRandom(seed: 7)
    while received < 10_000 {
      sent += UInt64(
        driver.add(count: Int(random.next() % 8), writable: false) { index in
          RingBuffer(address: base, length: 8, token: sent + UInt64(index))
        })
      driver.publish()
      _ = try device.begin()
      var heads: [UInt32] = []
      let index = block.usedIdx
      while let chain = try device.next(in: memory) {
        device.pushUsed(chain, written: 0)
        heads.append(UInt32(chain.head))
      }
      device.publishUsed()
      // One element for all of them: the last one's, where the first one's belongs.
      if let last = heads.last { #expect(block.usedElement(index).id == last) }
      #expect(block.usedIdx == index &+ UInt16(heads.count))
      while let used = try driver.nextUsed() {
        #expect(used == UsedBuffer(token: received, written: 0))
        received += 1
      }
      #expect(driver.inFlight == 0)
    }
  }

  @Test("Device rule 18: with IN_ORDER a malformed chain cannot overtake: the ring breaks instead")
  func inOrderMalformed() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device { $0.inOrder = true }
    block.setDescriptor(0, RawDescriptor(base, 1))
    block.setDescriptor(1, RawDescriptor(0, 1))
    for index: UInt16 in 0..<2 { offer(block, index, at: index) }
    _ = try ring.begin()
    let first = try #require(try ring.next(in: memory))
    let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(error?.rule == .bufferUnmapped && ring.failure == error)
    ring.pushUsed(first, written: 0)
    ring.publishUsed()
    #expect(block.usedIdx == 1 && block.usedElement(0).id == 0)
  }
}
