import CNetdevSystem
import Testing
import Virtio

/// The device side against a driver that lies in the shared memory.
@Suite struct SplitDeviceRingTests {
  private let base = RingBlock.bufferBase

  /// Makes `head` available at `index`, which is then the last.
  private func offer(_ block: RingBlock, _ head: UInt16, at index: UInt16 = 0) {
    block.setAvail(index, head: head)
    block.availIdx = index &+ 1
  }

  /// Expects the chain at the ring's next head to break `rule`, to come back used with length 0, and the next chain, a good
  /// one, to be served: never wedged (device rule 18).
  private func expectRefused(
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
      #expect(available == 1, sourceLocation: sourceLocation)
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

  // MARK: Rules 1, 13

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
    #expect(available == 0 && ring.failure == nil)
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
    #expect(first == 1 && chain?.head == 0 && end == nil)
    let second = try ring.begin()
    #expect(second == 1)
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
      let chain = try ring.next(in: memory)
      #expect(available == 1 && chain?.head == step % 8)
      ring.pushUsed(head: step % 8, written: 0)
      ring.publishUsed()
      #expect(block.usedIdx == index &+ 1 && block.usedElement(index).id == UInt32(step % 8))
    }
    #expect(ring.nextAvailIndex == 65530 &+ 20)
  }

  // MARK: Rules 3, 4, 5, 6, 18

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

  // MARK: Rules 7, 9, 10, 11

  @Test("Device rule 7: the net header is gathered from pieces of one byte")
  func gather() throws {
    let block = try RingBlock(size: 16)
    let memory = try block.memory()
    var ring = try block.device()
    for byte: UInt16 in 0..<14 {
      unsafe block.buffers.storeBytes(of: UInt8(byte + 1), toByteOffset: Int(byte) * 3, as: UInt8.self)
      let flags = byte < 13 ? RawDescriptor.next : 0
      block.setDescriptor(byte, RawDescriptor(base + 3 * UInt64(byte), byte == 13 ? 0 : 1, flags, next: byte + 1))
    }
    offer(block, 0)
    _ = try ring.begin()
    let chain = try #require(try ring.next(in: memory))
    #expect(chain.readableLength == 13)
    var bytes = [UInt8](repeating: 0, count: 12)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe chain.copyBytes(from: 0, into: $0) }
    #expect(count == 12 && bytes == Array(1...12))
    let rest = unsafe bytes.withUnsafeMutableBytes { unsafe chain.copyBytes(from: 12, into: $0) }
    #expect(rest == 1 && bytes[0] == 13)
    let none = unsafe bytes.withUnsafeMutableBytes { unsafe chain.copyBytes(from: 13, into: $0) }
    #expect(none == 0)
  }

  @Test("Device rule 11: writing fills the writable segments in turn, and stops at their end")
  func scatter() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    unsafe block.buffers.initializeMemory(as: UInt8.self, repeating: 0xcc, count: 64)
    block.setDescriptor(0, RawDescriptor(base, 3, RawDescriptor.next, next: 1))
    block.setDescriptor(1, RawDescriptor(base + 8, 3, RawDescriptor.next | RawDescriptor.write, next: 2))
    block.setDescriptor(2, RawDescriptor(base + 16, 4, RawDescriptor.write))
    offer(block, 0)
    _ = try ring.begin()
    let chain = try #require(try ring.next(in: memory))
    let frame: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    let written = unsafe frame.withUnsafeBytes { unsafe chain.write($0, at: 1) }
    #expect(written == 6)
    let bytes = (0..<24).map { unsafe block.buffers.load(fromByteOffset: $0, as: UInt8.self) }
    #expect(bytes[0..<9].allSatisfy { $0 == 0xcc } && Array(bytes[9..<11]) == [1, 2])
    #expect(Array(bytes[11..<16]).allSatisfy { $0 == 0xcc } && Array(bytes[16..<20]) == [3, 4, 5, 6])
    #expect(bytes[20..<24].allSatisfy { $0 == 0xcc })
  }

  @Test("Device rule 9: the buffers of a merged frame become visible together")
  func exposedTogether() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    for id: UInt16 in 0..<8 {
      block.setDescriptor(id, RawDescriptor(base + 100 * UInt64(id), 100, RawDescriptor.write))
    }
    for index: UInt16 in 0..<8 { offer(block, 7 - index, at: index) }
    _ = try ring.begin()
    var heads: [UInt16] = []
    var lengths = 0
    // 250 bytes want three buffers; all of them stay at hand until the frame is whole.
    var chains: [DescriptorChain] = []
    while lengths < 250, let chain = try ring.next(in: memory) {
      chains.append(chain)
      lengths += chain.writableLength
      heads.append(chain.head)
    }
    #expect(heads == [7, 6, 5])
    #expect(chains.map(\.writableLength) == [100, 100, 100])
    for (position, chain) in chains.enumerated() {
      ring.pushUsed(head: chain.head, written: position < 2 ? 100 : 50)
      #expect(block.usedIdx == 0)
    }
    ring.publishUsed()
    #expect(block.usedIdx == 3)
    #expect(block.usedElement(2).id == 5 && block.usedElement(2).length == 50)
  }

  @Test("Device rule 10: what does not suffice is put back, and comes again")
  func rewind() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    for id: UInt16 in 0..<8 { block.setDescriptor(id, RawDescriptor(base, 100, RawDescriptor.write)) }
    for index: UInt16 in 0..<3 { offer(block, index, at: index) }
    _ = try ring.begin()
    while try ring.next(in: memory) != nil {}
    #expect(ring.outstanding == 3)
    let tooMany = violation { () throws(RingError) in try ring.rewind(4) }
    #expect(tooMany == RingError(.rewind, 4))
    try ring.rewind(2)
    #expect(ring.outstanding == 1 && ring.nextAvailIndex == 1)
    let available = try ring.begin()
    let chain = try ring.next(in: memory)
    #expect(available == 2 && chain?.head == 1)
    ring.publishUsed()
    #expect(block.usedIdx == 0)
    // Not beyond this batch: the segments of the one before are gone.
    let earlier = violation { () throws(RingError) in try ring.rewind(2) }
    #expect(earlier == RingError(.rewind, 2))
  }

  @Test("Device rule 10: nothing is put back across a malformed chain, which has been returned")
  func rewindMalformed() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    block.setDescriptor(0, RawDescriptor(base, 1))
    block.setDescriptor(1, RawDescriptor(0, 1))
    block.setDescriptor(2, RawDescriptor(base, 1))
    for index: UInt16 in 0..<3 { offer(block, index, at: index) }
    _ = try ring.begin()
    _ = try ring.next(in: memory)
    let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(error?.rule == .bufferUnmapped)
    _ = try ring.next(in: memory)
    let across = violation { () throws(RingError) in try ring.rewind(2) }
    #expect(across == RingError(.rewind, 2))
    try ring.rewind(1)
    let chain = try ring.next(in: memory)
    #expect(chain?.head == 2)
  }

  @Test("Batches: singles, chains and a malformed one; the good ones first, the error next time, the rest after that")
  func batches() throws {
    for serves in [false, true] {
      let block = try RingBlock(size: 16)
      let memory = try block.memory()
      var ring = try block.device()
      for id: UInt16 in 0..<16 { block.setDescriptor(id, RawDescriptor(base, UInt32(id) + 1, RawDescriptor.write)) }
      block.setDescriptor(2, RawDescriptor(base, 1, RawDescriptor.next, next: 3))
      block.setDescriptor(5, RawDescriptor(1, 1))
      for (index, head) in ([0, 1, 2, 4, 5, 6, 7] as [UInt16]).enumerated() { offer(block, head, at: UInt16(index)) }
      let output = UnsafeMutablePointer<DescriptorChain>.allocate(capacity: 16)
      defer { unsafe output.deallocate() }
      var heads: [UInt16] = []
      func batch(_ ring: inout SplitDeviceRing, _ memory: borrowing GuestMemory) throws(RingError) -> Int {
        if serves {
          return try ring.serve(max: 16, in: memory) { chain in
            heads.append(chain.head)
            return UInt32(chain.writableLength)
          }
        }
        let count = try unsafe ring.pop(into: output, max: 16, in: memory)
        for index in 0..<count {
          let chain = unsafe output[index]
          heads.append(chain.head)
          ring.pushUsed(head: chain.head, written: UInt32(chain.writableLength))
        }
        return count
      }
      let first = try batch(&ring, memory)
      #expect(first == 4 && heads == [0, 1, 2, 4])
      var error: RingError?
      do throws(RingError) { _ = try batch(&ring, memory) } catch let thrown { error = thrown }
      #expect(error == RingError(.bufferUnmapped, 1))
      let second = try batch(&ring, memory)
      #expect(second == 2 && heads == [0, 1, 2, 4, 6, 7])
      ring.publishUsed()
      #expect(block.usedIdx == 7)
      var returned: [UInt32: UInt32] = [:]
      for index: UInt16 in 0..<7 { returned[block.usedElement(index).id] = block.usedElement(index).length }
      #expect(returned == [0: 1, 1: 2, 2: 4, 4: 5, 5: 0, 6: 7, 7: 8])
    }
  }

  @Test("A batch whose chains have more segments than there is room for goes on in the next one")
  func segmentRoom() throws {
    let block = try RingBlock(size: 4)
    let memory = try block.memory()
    var ring = try block.device { $0.indirect = true }
    // Four heads with a table of three each, into room for four segments.
    for id: UInt16 in 0..<4 {
      block.setDescriptor(id, RawDescriptor(base + 64 * UInt64(id), 48, RawDescriptor.indirect))
      block.setTable(
        at: 64 * Int(id),
        (1...3).map { RawDescriptor(base + 4096, 1, $0 < 3 ? RawDescriptor.next : 0, next: UInt16($0)) })
      offer(block, id, at: id)
    }
    let output = UnsafeMutablePointer<DescriptorChain>.allocate(capacity: 4)
    defer { unsafe output.deallocate() }
    for id: UInt16 in 0..<4 {
      let count = try unsafe ring.pop(into: output, max: 4, in: memory)
      #expect(unsafe count == 1 && output[0].head == id && output[0].readableCount == 3)
    }
    let none = try unsafe ring.pop(into: output, max: 4, in: memory)
    #expect(none == 0)
  }

  // MARK: Rules 12, 14, IN_ORDER

  @Test("Device rule 12: the first notification after a start is unconditional, whatever used_event was left there")
  func firstCall() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.device { $0.eventIndex = true }
    block.usedEvent = 0x4000
    let before = ring.needsCall()
    #expect(!before, "nothing was used")
    ring.pushUsed(head: 0, written: 0)
    ring.publishUsed()
    let first = ring.needsCall()
    ring.pushUsed(head: 1, written: 0)
    ring.publishUsed()
    let second = ring.needsCall()
    #expect(first && !second)
    ring.reset()
    ring.pushUsed(head: 0, written: 0)
    ring.publishUsed()
    let restarted = ring.needsCall()
    #expect(restarted)
  }

  @Test("§2.7.7: a call when used_event was passed; without EVENT_IDX unless bit 0 of the flags is set")
  func calls() throws {
    let block = try RingBlock(size: 8)
    var ring = try block.device { $0.eventIndex = true }
    func push() -> Bool {
      ring.pushUsed(head: 0, written: 0)
      ring.publishUsed()
      return ring.needsCall()
    }
    _ = push()
    block.usedEvent = 2
    block.availFlags = 1
    #expect([push(), push(), push()] == [false, true, false])

    let plain = try RingBlock(size: 8)
    var flags = try plain.device()
    func pushPlain() -> Bool {
      flags.pushUsed(head: 0, written: 0)
      flags.publishUsed()
      return flags.needsCall()
    }
    _ = pushPlain()
    var answers: [Bool] = []
    for value: UInt16 in [1, 0, 0xfffe] {
      plain.availFlags = value
      answers.append(pushPlain())
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
    for _ in 0..<1_000_000 { seen += try ring.begin() }
    #expect(seen == 0 && ring.outstanding == 0)
  }

  @Test("Rule 18: with IN_ORDER the oldest chains return by one element, against our own driver")
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
      var last: DescriptorChain?
      while let chain = try device.next(in: memory) { last = chain }
      if let last { device.pushUsedBatch(head: last.head, count: device.outstanding, written: 0) }
      device.publishUsed()
      while let used = try driver.nextUsed() {
        #expect(used == UsedBuffer(token: received, written: 0))
        received += 1
      }
      #expect(driver.inFlight == 0)
    }
  }

  @Test("Rule 18: with IN_ORDER a malformed chain cannot overtake: the ring breaks instead")
  func inOrderMalformed() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device { $0.inOrder = true }
    block.setDescriptor(0, RawDescriptor(base, 1))
    block.setDescriptor(1, RawDescriptor(0, 1))
    for index: UInt16 in 0..<2 { offer(block, index, at: index) }
    _ = try ring.begin()
    _ = try ring.next(in: memory)
    let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(error?.rule == .bufferUnmapped && ring.failure == error)
    ring.pushUsed(head: 0, written: 0)
    ring.publishUsed()
    #expect(block.usedIdx == 1 && block.usedElement(0).id == 0)
  }

  // MARK: Rule 15

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
    let output = UnsafeMutablePointer<DescriptorChain>.allocate(capacity: size)
    defer { unsafe output.deallocate() }
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
        let count = try unsafe ring.pop(into: output, max: size, in: memory)
        for position in 0..<count {
          let chain = unsafe output[position]
          for segment in 0..<chain.readableCount + chain.writableCount {
            let place = unsafe chain.segments[segment]
            let start = unsafe place.base - block.buffers
            #expect(start >= 0 && start + place.length <= RingBlock.bufferBytes)
          }
          ring.pushUsed(head: chain.head, written: 0)
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
      _ = ring.armKick()
    }
  }
}
