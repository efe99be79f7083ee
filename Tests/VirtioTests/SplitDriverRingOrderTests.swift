import Testing
import Virtio

/// What is left in a ring when its device is lost comes out in the order in which it went in.
@Suite struct SplitDriverRingOrderTests {
  /// A ring of eight in which chains went in and out, in and out of order, so that heads are no longer in table order.
  private func withMixed(_ body: (inout SplitDriverRing, RingBlock, [UInt64]) throws -> Void) throws {
    let block = try RingBlock(size: 8)
    var ring = try block.driver { _ in }
    var out: [UInt64] = []
    func add(_ tokens: Range<UInt64>) {
      for token in tokens where ring.add(address: RingBlock.bufferBase, length: 1, writable: false, token: token) {
        out.append(token)
      }
      ring.publish()
    }
    var used: UInt16 = 0
    func giveBack(_ heads: [UInt16]) throws {
      for head in heads {
        block.setUsed(used, id: UInt32(head), length: 0)
        used &+= 1
      }
      block.usedIdx = used
      while let chain = try ring.nextUsed() { out.removeAll { $0 == chain.token } }
    }
    add(0..<8)
    try giveBack([5, 1, 7, 0])
    add(8..<12)
    try giveBack([2, 7])
    add(12..<14)
    try body(&ring, block, out)
  }

  @Test func `chains come in the order of publication, not in that of the table`() throws {
    try withMixed { ring, _, out in
      #expect(out.count == 8)
      var drained: [UInt64] = []
      let count = ring.drainInOrder { drained.append($0) }
      #expect(drained == out)
      let isBroken = ring.isBroken
      #expect(count == 8 && isBroken)
      let again = ring.drainInOrder { _ in Issue.record("drained twice") }
      #expect(again == 0)
    }
  }

  /// A chain that the device keeps while more than a ring of newer ones goes through leaves no trace in the available ring. Two such
  /// came back in the order of the table, and after a loss a frame went out before an older one of its flow (simulation, world
  /// peer-lost, seed 5809).
  @Test func `chains that are older than the whole available ring come in their order too`() throws {
    let block = try RingBlock(size: 4)
    var ring = try block.driver { _ in }
    var used: UInt16 = 0
    var out: [UInt64] = []
    func add(_ token: UInt64) {
      if ring.add(address: RingBlock.bufferBase, length: 1, writable: false, token: token) { out.append(token) }
      ring.publish()
    }
    func giveBack(_ head: UInt16) throws {
      block.setUsed(used, id: UInt32(head), length: 0)
      used &+= 1
      block.usedIdx = used
      while let chain = try ring.nextUsed() { out.removeAll { $0 == chain.token } }
    }
    for token: UInt64 in 0..<4 { add(token) }
    // Heads 2 and 1 come back in this order: a newer chain gets the lower head, once 3 has come and gone.
    try giveBack(0)
    add(4)
    for token: UInt64 in 5..<12 {
      try giveBack(3)
      add(token)
    }
    #expect(out == [1, 2, 4, 11])
    var drained: [UInt64] = []
    ring.drainInOrder { drained.append($0) }
    #expect(drained == out)
  }

  @Test func `a device that scribbles over the available ring changes nothing`() throws {
    for scribble: UInt16 in [0, 3, 7, 8, 0xffff] {
      try withMixed { ring, block, out in
        for place: UInt16 in 0..<8 { block.setAvail(place, head: scribble) }
        var drained: [UInt64] = []
        ring.drainInOrder { drained.append($0) }
        #expect(drained == out)
      }
    }
  }
}
