import Testing
import Virtio

/// Both sides of a ring against each other, through the wrap of the 16-bit indices.
@Suite struct SplitRingSweepTests {
  @Test(
    "§2.7: every token comes back once with its length, sizes 2 to 1024, through the wrap at 65535",
    arguments: [2, 4, 8, 16, 64, 256, 1024], [0, 65530] as [UInt16])
  func sweep(size: Int, start: UInt16) throws {
    let block = try RingBlock(size: size)
    let memory = try block.memory()
    var driver = try block.driver {
      $0.startIndex = start; $0.eventIndex = true
    }
    var device = try block.device {
      $0.startIndex = start; $0.eventIndex = true
    }
    var sent: UInt64 = 0
    var received: UInt64 = 0
    var random = SeededRandom(seed: UInt64(size) + UInt64(start))
    while received < 70_000 {
      let burst = Int(random.next() % UInt64(size)) + 1
      let added = driver.add(count: burst, writable: true) { index in
        RingBuffer(address: RingBlock.bufferBase, length: 64, token: sent + UInt64(index))
      }
      sent += UInt64(added)
      driver.publish()
      _ = try device.begin()
      let take = Int(random.next() % UInt64(size)) + 1
      var taken = 0
      while taken < take, let chain = try device.next(in: memory) {
        device.pushUsed(head: chain.head, written: UInt32(taken % 65))
        taken += 1
      }
      device.publishUsed()
      var position = 0
      while let used = try driver.nextUsed() {
        #expect(used == UsedBuffer(token: received, written: UInt32(position % 65)))
        position += 1
        received += 1
      }
      #expect(position == taken)
      #expect(driver.inFlight == Int(sent - received))
      #expect(driver.freeCount == size - driver.inFlight)
    }
  }
}
