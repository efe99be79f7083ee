import RingThreads
import Testing
import Virtio

// Frames over several buffers, batches, and what is put back (device rules 7, 9 to 11).
extension SplitDeviceRingTests {
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
      ring.pushUsed(chain, written: position < 2 ? 100 : 50)
      #expect(block.usedIdx == 0)
    }
    ring.publishUsed()
    #expect(block.usedIdx == 3)
    #expect(block.usedElement(2).id == 5 && block.usedElement(2).length == 50)
  }

  @Test("Device rule 10: what does not suffice is put back, and comes again")
  func putBack() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    for id: UInt16 in 0..<8 { block.setDescriptor(id, RawDescriptor(base, 100, RawDescriptor.write)) }
    for index: UInt16 in 0..<3 { offer(block, index, at: index) }
    let chains = try ring.take(max: 8, in: memory)
    #expect(chains.count == 3 && ring.outstanding == 3)
    try ring.putBack(chains[2])
    try ring.putBack(chains[1])
    #expect(ring.outstanding == 1 && ring.nextAvailIndex == 1)
    let again = try ring.take(max: 8, in: memory)
    #expect(again.map(\.head) == [1, 2])
    ring.publishUsed()
    #expect(block.usedIdx == 0)
    // Not beyond this batch: the segments of the one before are gone.
    try ring.putBack(again[1])
    try ring.putBack(again[0])
    let earlier = violation { () throws(RingError) in try ring.putBack(chains[0]) }
    #expect(earlier == RingError(.putBack, 0))
  }

  @Test("Device rule 10: nothing is put back across a malformed chain, which has been returned")
  func putBackMalformed() throws {
    let block = try RingBlock(size: 8)
    let memory = try block.memory()
    var ring = try block.device()
    block.setDescriptor(0, RawDescriptor(base, 1))
    block.setDescriptor(1, RawDescriptor(0, 1))
    block.setDescriptor(2, RawDescriptor(base, 1))
    for index: UInt16 in 0..<3 { offer(block, index, at: index) }
    _ = try ring.begin()
    let first = try #require(try ring.next(in: memory))
    let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
    #expect(error?.rule == .bufferUnmapped)
    let last = try #require(try ring.next(in: memory))
    try ring.putBack(last)
    let across = violation { () throws(RingError) in try ring.putBack(first) }
    #expect(across == RingError(.putBack, 0))
    let chain = try ring.next(in: memory)
    #expect(chain?.head == 2)
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
    for id: UInt16 in 0..<4 {
      let chains = try ring.take(max: 4, in: memory)
      #expect(chains.count == 1 && chains[0].head == id && chains[0].readableCount == 3)
    }
    let none = try ring.take(max: 4, in: memory)
    #expect(none.isEmpty)
  }

  /// Two rings of eight chains each, whose heads are available in these orders; each source tells by its length which one it is.
  private func relay(
    _ heads: [UInt16], _ targetHeads: [UInt16], inOrder: Bool, refusing refused: UInt32 = 0
  ) throws -> (carried: [Int], returned: [UInt32], filled: [UInt32]) {
    let (block, target) = (try RingBlock(size: 8), try RingBlock(size: 8))
    // The buffers of both lie in the one's memory.
    let memory = try block.memory()
    var source = try block.device { $0.inOrder = inOrder }
    var destination = try target.device { $0.inOrder = inOrder }
    for id: UInt16 in 0..<8 {
      block.setDescriptor(id, RawDescriptor(base, UInt32(id) + 1))
      target.setDescriptor(id, RawDescriptor(base + 4096, 100, RawDescriptor.write))
    }
    for (index, head) in heads.enumerated() { offer(block, head, at: UInt16(index)) }
    for (index, head) in targetHeads.enumerated() { offer(target, head, at: UInt16(index)) }
    #expect(try source.begin() && destination.begin())
    var carried: [Int] = []
    let count = source.relay(to: &destination, max: 8, in: memory) { from, to in
      guard from.length != refused else { return nil }
      carried.append(from.length)
      return UInt32(from.length)
    }
    #expect(count == carried.count && source.outstanding == 0 && destination.outstanding == 0)
    source.publishUsed()
    destination.publishUsed()
    #expect(Int(block.usedIdx) == count && Int(target.usedIdx) == count)
    let filled = (0..<count).map { target.usedElement(UInt16($0)) }
    #expect(filled.map { Int($0.length) } == carried)
    // One element stands for all of them where they are used in order.
    let returned = (0..<(inOrder ? min(count, 1) : count)).map { block.usedElement(UInt16($0)) }
    #expect(returned.allSatisfy { $0.length == 0 })
    return (carried, returned.map(\.id), filled.map(\.id))
  }

  @Test(
    "A relay follows the heads, whether they come in turn or not, and ends at the first that is none",
    arguments: [false, true])
  func relayed(inOrder: Bool) throws {
    let (turn, back): ([UInt16], [UInt16]) = (Array(0..<8), (0..<8).reversed())
    for (heads, others) in [
      (turn, turn), (back, back), (turn, back), ([6, 7, 0, 1, 5, 2, 3, 4], [3, 4, 5, 6, 7, 0, 2, 1]),
    ] {
      let all = try relay(heads, others, inOrder: inOrder)
      #expect(all.carried == heads.map { Int($0) + 1 } && all.filled == others.map(UInt32.init))
      #expect(all.returned == (inOrder ? heads.suffix(1) : heads[...]).map(UInt32.init))
      // Not of the simple kind, and no head at all: what comes before them is carried.
      let some = try relay(heads, others, inOrder: inOrder, refusing: UInt32(heads[5]) + 1)
      #expect(some.carried == heads.prefix(5).map { Int($0) + 1 })
      #expect(some.returned.last == UInt32(heads[4]))
      var wrong = heads
      wrong[4] = 8
      #expect(try relay(wrong, others, inOrder: inOrder).carried == heads.prefix(4).map { Int($0) + 1 })
      wrong[0] = 0xffff
      #expect(try relay(wrong, others, inOrder: inOrder).carried == [])
      wrong = others
      wrong[3] = 8
      #expect(try relay(heads, wrong, inOrder: inOrder).carried == heads.prefix(3).map { Int($0) + 1 })
    }
  }
}
