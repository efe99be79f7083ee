import RingThreads
import Testing
import Virtio

// Chains that break a rule: what is refused, and what is not (device rules 3 to 6, 18).
extension SplitDeviceRingTests {
  @Test("Device rule 3: a head beyond the ring breaks it", arguments: [8, 255, 65535] as [UInt16])
  func headOutOfRange(head: UInt16) throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    offer(block, head)
    _ = try ring.begin()
    let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(error == RingError(.headOutOfRange, UInt64(head)))
    #expect(ring.failure == error)
    let later = violation { () throws(RingError) in _ = try ring.begin() }
    #expect(later == error)
  }

  @Test("Device rule 3: a chain that runs in a circle ends", arguments: [1, 2, 8] as [UInt16])
  func loop(length: UInt16) throws {
    try expectRefused(RingError(.chainLoop, 8)) { block in
      for id in 0..<length {
        block.setDescriptor(id, RawDescriptor(base, 1, RawDescriptor.next, next: (id + 1) % length))
      }
      return 0
    }
  }

  @Test("Device rule 3: a chain of all descriptors is none too long")
  func longest() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    for id: UInt16 in 0..<8 {
      let flags = (id < 7 ? RawDescriptor.next : 0) | (id >= 3 ? RawDescriptor.write : 0)
      block.setDescriptor(id, RawDescriptor(base + UInt64(id) * 100, 10, flags, next: id + 1))
    }
    offer(block, 0)
    _ = try ring.begin()
    let chain = try #require(try ring.next(in: memory))
    #expect(chain.readableCount == 3 && chain.writableCount == 5)
    #expect(chain.readableLength == 30 && chain.writableLength == 50)
    #expect(unsafe chain.writable[4].base == block.buffers + 700)
  }

  @Test("Device rule 3: next is below the size", arguments: [8, 65535] as [UInt16])
  func nextOutOfRange(next: UInt16) throws {
    try expectRefused(RingError(.nextOutOfRange, UInt64(next))) { block in
      block.setDescriptor(2, RawDescriptor(base, 1, RawDescriptor.next, next: next))
      return 2
    }
  }

  @Test("Device rule 3: readable buffers come before writable ones")
  func order() throws {
    try expectRefused(RingError(.readableAfterWritable, 1)) { block in
      block.setDescriptor(0, RawDescriptor(base, 1, RawDescriptor.next | RawDescriptor.write, next: 1))
      block.setDescriptor(1, RawDescriptor(base, 1))
      return 0
    }
  }

  @Test("Device rule 3: a chain is no longer than 2³² bytes")
  func overlong() throws {
    let host = UnsafeMutableRawPointer.allocate(byteCount: 16, alignment: 16)
    defer { unsafe host.deallocate() }
    // Nothing is read: the region only has to be long enough to be named.
    let memory = try unsafe GuestMemory([GuestRegion(address: 0, length: 1 << 33, host: host)])
    let block = try RingBlock(size: 8)
    var ring = try block.device()
    block.setDescriptor(0, RawDescriptor(0, .max, RawDescriptor.next, next: 1))
    block.setDescriptor(1, RawDescriptor(0, 1))
    block.setDescriptor(2, RawDescriptor(0, .max, RawDescriptor.next, next: 3))
    block.setDescriptor(3, RawDescriptor(0, 2))
    block.setAvail(0, head: 0)
    offer(block, 2, at: 1)
    _ = try ring.begin()
    let chain = try ring.next(in: memory)
    #expect(chain?.readableLength == 1 << 32)
    let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(error == RingError(.chainOverlong, (1 << 32) + 1))
  }

  @Test("Device rule 5: unmapped, overflowing and overhanging buffers are refused")
  func unmapped() throws {
    let end = base + UInt64(RingBlock.bufferBytes)
    for (address, length) in [(0, 1), (base - 1, 2), (end - 1, 2), (end, 1), (.max, 2), (base, .max), (.max, .max)]
      as [(UInt64, UInt32)]
    {
      for flags in [0, RawDescriptor.write] {
        try expectRefused(RingError(.bufferUnmapped, address)) { block in
          block.setDescriptor(0, RawDescriptor(address, length, flags))
          return 0
        }
        try expectRefused(RingError(.bufferUnmapped, address)) { block in
          block.setDescriptor(0, RawDescriptor(base, 0, RawDescriptor.next | flags, next: 1))
          block.setDescriptor(1, RawDescriptor(address, length, flags))
          return 0
        }
      }
    }
  }

  @Test("Device rule 6: a writable buffer in a read-only region is refused; a readable one is read")
  func readOnly() throws {
    let block = try RingBlock(size: 8)
    let memory = try unsafe GuestMemory([
      GuestRegion(address: base, length: 4096, host: block.buffers, isWritable: false)
    ])
    var ring = try block.device()
    block.setDescriptor(0, RawDescriptor(base, 10, RawDescriptor.write))
    block.setDescriptor(1, RawDescriptor(base, 10))
    block.setDescriptor(2, RawDescriptor(base, 10, RawDescriptor.next, next: 3))
    block.setDescriptor(3, RawDescriptor(base, 10, RawDescriptor.write))
    for index: UInt16 in 0..<3 { offer(block, index, at: index) }
    _ = try ring.begin()
    let first = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    let second = try ring.next(in: memory)
    let third = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(first == RingError(.bufferUnmapped, base) && third == first)
    #expect(second?.readableLength == 10)
  }

  @Test(
    "Device rule 4: a length of zero, or no multiple of 16, or longer than the ring",
    arguments: [0, 8, 17, 144, .max] as [UInt32])
  func indirectLength(length: UInt32) throws {
    try expectRefused(RingError(.indirectLength, UInt64(length))) { block in
      block.setDescriptor(0, RawDescriptor(base, length, RawDescriptor.indirect))
      return 0
    }
  }

  @Test("Device rule 4: an indirect table needs the feature, stands alone, and has no table inside")
  func indirectForm() throws {
    try expectRefused(RingError(.indirectNotNegotiated, 4), indirect: false) { block in
      block.setDescriptor(0, RawDescriptor(base, 16, RawDescriptor.indirect))
      return 0
    }
    try expectRefused(RingError(.indirectWithNext, 5)) { block in
      block.setDescriptor(0, RawDescriptor(base, 16, RawDescriptor.indirect | RawDescriptor.next, next: 1))
      return 0
    }
    try expectRefused(RingError(.indirectNested, 4)) { block in
      block.setDescriptor(0, RawDescriptor(base, 32, RawDescriptor.indirect))
      block.setTable(
        at: 0, [RawDescriptor(base, 1, RawDescriptor.next, next: 1), RawDescriptor(base, 16, RawDescriptor.indirect)])
      return 0
    }
    try expectRefused(RingError(.bufferUnmapped, 8)) { block in
      block.setDescriptor(0, RawDescriptor(8, 16, RawDescriptor.indirect))
      return 0
    }
    try expectRefused(RingError(.indirectAlignment, base + 4)) { block in
      block.setDescriptor(0, RawDescriptor(base + 4, 16, RawDescriptor.indirect))
      return 0
    }
    try expectRefused(RingError(.nextOutOfRange, 2)) { block in
      block.setDescriptor(0, RawDescriptor(base, 32, RawDescriptor.indirect))
      block.setTable(at: 0, [RawDescriptor(base, 1, RawDescriptor.next, next: 2)])
      return 0
    }
    try expectRefused(RingError(.chainLoop, 8)) { block in
      block.setDescriptor(0, RawDescriptor(base, 32, RawDescriptor.indirect))
      block.setTable(
        at: 0,
        [RawDescriptor(base, 1, RawDescriptor.next, next: 1), RawDescriptor(base, 1, RawDescriptor.next, next: 0)])
      return 0
    }
    // Seven direct ones and two in the table: nine.
    try expectRefused(RingError(.chainLoop, 8)) { block in
      for id: UInt16 in 0..<7 { block.setDescriptor(id, RawDescriptor(base, 1, RawDescriptor.next, next: id + 1)) }
      block.setDescriptor(7, RawDescriptor(base, 32, RawDescriptor.indirect))
      block.setTable(at: 0, [RawDescriptor(base, 1, RawDescriptor.next, next: 1), RawDescriptor(base, 1)])
      return 0
    }
  }

  @Test("Device rule 4: direct descriptors and a final table are one chain; WRITE on the reference is ignored")
  func indirectAccepted() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device { $0.indirect = true }
    block.setDescriptor(3, RawDescriptor(base + 1000, 12, RawDescriptor.next, next: 5))
    block.setDescriptor(5, RawDescriptor(base, 48, RawDescriptor.indirect | RawDescriptor.write))
    block.setTable(
      at: 0,
      [
        RawDescriptor(base + 2000, 20, RawDescriptor.next, next: 2), RawDescriptor(.max, .max, 0xffff),
        RawDescriptor(base + 3000, 30, RawDescriptor.write),
      ])
    offer(block, 3)
    _ = try ring.begin()
    let chain = try #require(try ring.next(in: memory))
    #expect(chain.head == 3 && chain.readableCount == 2 && chain.writableCount == 1)
    #expect(unsafe chain.readable[1].base == block.buffers + 2000)
    #expect(unsafe chain.writable[0].base == block.buffers + 3000)
    #expect(chain.readableLength == 32 && chain.writableLength == 30)
  }

  @Test("Device rule 6: descriptor tables and readable buffers are never written")
  func untouched() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    unsafe block.buffers.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 4096)
    for id: UInt16 in 0..<8 { block.setDescriptor(id, RawDescriptor(base + 64 * UInt64(id), 64)) }
    for index: UInt16 in 0..<8 { offer(block, index, at: index) }
    let before = (0..<8).map { block.descriptor(UInt16($0)) }
    let count = try ring.serve(max: 8, in: memory) { _ in 0 }
    ring.publishUsed()
    #expect(count == 8 && block.usedIdx == 8)
    #expect((0..<8).map { block.descriptor(UInt16($0)) } == before)
    #expect((0..<4096).allSatisfy { unsafe block.buffers.load(fromByteOffset: $0, as: UInt8.self) == 0x5a })
    #expect(block.availIdx == 8 && block.availFlags == 0)
  }
}
