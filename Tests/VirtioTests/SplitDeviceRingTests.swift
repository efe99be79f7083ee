import CNetdevSystem
import NetdevTesting
import RingThreads
import Testing
import Virtio

/// The device side against a driver that lies in the shared memory.
@Suite struct SplitDeviceRingTests {
  let base = RingBlock.bufferBase

  /// Makes `head` available at `index`, which is then the last.
  func offer(_ block: RingBlock, _ head: UInt16, at index: UInt16 = 0) {
    block.setAvail(index, head: head)
    block.availIdx = index &+ 1
  }

  /// Expects the chain at the ring's next head to break `rule`, to come back used with length 0, and the next chain, a good
  /// one, to be served: never wedged (device rule 18).
  func expectRefused(
    _ expected: RingError, size: Int = 8, indirect: Bool = true, sourceLocation: SourceLocation = #_sourceLocation,
    _ write: (RingBlock) -> UInt16
  ) throws {
    for stops in [false, true] {
      let block = try RingBlock(size: size)
      let memory = try block.memory()
      var ring = try block.device {
        $0.indirect = indirect
        $0.stopsAtMalformedChain = stops
      }
      let head = write(block)
      offer(block, head)
      let available = try ring.begin()
      #expect(available, sourceLocation: sourceLocation)
      let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
      #expect(error == expected, sourceLocation: sourceLocation)
      ring.publishUsed()
      let element = block.usedElement(0)
      #expect(block.usedIdx == 1, sourceLocation: sourceLocation)
      #expect(element.id == UInt32(head) && element.length == 0, sourceLocation: sourceLocation)
      #expect(ring.malformedChains == 1, sourceLocation: sourceLocation)

      block.setDescriptor(0, RawDescriptor(base, 64))
      offer(block, 0, at: 1)
      let later = violation { () throws(RingError) in _ = try ring.begin() }
      if stops {
        #expect(later == expected && ring.failure == expected, sourceLocation: sourceLocation)
      } else {
        let chain = try ring.next(in: memory)
        #expect(later == nil && chain?.head == 0 && chain?.readableLength == 64, sourceLocation: sourceLocation)
      }
    }
  }

  @Test("Device rule 1: avail.idx moves by no more than the size", arguments: [9, 100, 32768, 65535] as [UInt16])
  func availIndexJump(index: UInt16) throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    block.availIdx = index
    for _ in 0..<2 {
      let error = violation { () throws(RingError) in _ = try ring.begin() }
      #expect(error == RingError(.availIndexJump, UInt64(index)))
      let chain = try ring.next(in: memory)
      #expect(chain == nil && ring.failure == error)
    }
    block.availIdx = 0
    ring.reset()
    let available = try ring.begin()
    #expect(!available && ring.failure == nil)
  }

  @Test("Device rule 1: a batch looks at avail.idx once")
  func snapshot() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    for id: UInt16 in 0..<8 { block.setDescriptor(id, RawDescriptor(base, 64)) }
    offer(block, 0)
    let first = try ring.begin()
    offer(block, 1, at: 1)
    let chain = try ring.next(in: memory)
    let end = try ring.next(in: memory)
    #expect(first && chain?.head == 0 && end == nil)
    let second = try ring.begin()
    #expect(second)
  }

  @Test("Device rule 13: the indices wrap: a base of 65530 goes through 65535")
  func wrap() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device { $0.startIndex = 65530 }
    block.availIdx = 65530
    for id: UInt16 in 0..<8 { block.setDescriptor(id, RawDescriptor(base, 64)) }
    for step: UInt16 in 0..<20 {
      let index = 65530 &+ step
      offer(block, step % 8, at: index)
      let available = try ring.begin()
      let chain = try #require(try ring.next(in: memory))
      #expect(available && chain.head == step % 8)
      ring.pushUsed(chain, written: 0)
      ring.publishUsed()
      #expect(block.usedIdx == index &+ 1 && block.usedElement(index).id == UInt32(step % 8))
    }
    #expect(ring.nextAvailIndex == 65530 &+ 20)
  }

  @Test("Device rule 15: random memory never traps, never wedges", arguments: 0..<8)
  func fuzz(seed: Int) throws {
    let size = 16
    let block = try RingBlock(size: size)
    let memory = try block.memory()
    var ring = try block.device {
      $0.indirect = true
      $0.eventIndex = seed & 1 == 0
    }
    var random = SeededRandom(seed: UInt64(seed))
    for _ in 0..<5_000 {
      for _ in 0..<4 {
        let word = random.next()
        let address = base &+ (word & 0x1f_fff0)
        let flags = UInt16(truncatingIfNeeded: word >> 24) & (word & 1 == 0 ? 7 : 3)
        let descriptor = RawDescriptor(
          address, UInt32(truncatingIfNeeded: word >> 32) & 0xff0, flags,
          next: UInt16(truncatingIfNeeded: word >> 48) % 18)
        if word & 2 == 0 {
          block.setDescriptor(UInt16(truncatingIfNeeded: word >> 8) % UInt16(size), descriptor)
        } else {
          block.setTable(at: Int(word & 0xff0), [descriptor])
        }
      }
      let index = block.availIdx
      block.setAvail(index, head: UInt16(random.next() % 100 == 0 ? 200 : random.next() % UInt64(size)))
      block.availIdx = index &+ UInt16(random.next() % 200 == 0 ? 20 : 1)
      do throws(RingError) {
        for chain in try ring.take(max: size, in: memory) {
          for segment in 0..<chain.readableCount + chain.writableCount {
            let place = unsafe chain.segments[segment]
            let start = unsafe place.base - block.buffers
            #expect(start >= 0 && start + place.length <= RingBlock.bufferBytes)
          }
          ring.pushUsed(chain, written: 0)
        }
      } catch {
        if ring.failure != nil {
          // Explicitly broken: both sides start again.
          block.availIdx = 0
          ring.reset()
        }
      }
      ring.publishUsed()
      _ = ring.needsCall()
      if ring.armKick() {
        let goesOn = ring.goesOn(in: memory)
        #expect(goesOn)
      }
    }
  }
}
