import NetdevTesting
import Testing
import Virtio

/// What a device may not do with a split ring.
extension SplitRingMonitorTests {
  @Test func `used.idx goes beyond what was offered`() throws {
    let bench = try SplitBench()
    bench.offerOne()
    bench.use(0, length: 0)
    bench.use(0, length: 0)
    bench.expect(.usedIndex, in: bench.look())
  }

  @Test func `used.idx goes back`() throws {
    let bench = try SplitBench()
    bench.offerOne()
    bench.use(0, length: 0)
    #expect(bench.look().isEmpty)
    bench.usedIndex = 0
    bench.expect(.usedIndex, in: bench.look())
  }

  @Test(arguments: [1, 4, .max] as [UInt32]) func `a chain is used that the device does not have`(id: UInt32) throws {
    let bench = try SplitBench()
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.use(id, length: 0)
    bench.expect(.usedChain, in: bench.look())
  }

  @Test func `chains are not used in order`() throws {
    let bench = try SplitBench { $0.inOrder = true }
    for id in 0..<2 { bench.write(id, length: 64) }
    bench.offer(0, 1)
    #expect(bench.look().isEmpty)
    bench.use(1, length: 5)
    bench.expect(.usedOrder, in: bench.look())
  }

  @Test func `more bytes are used than could be written`() throws {
    let bench = try SplitBench()
    bench.write(0, length: 64, flags: Descriptor.isWritable)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.use(0, length: 65)
    bench.expect(.usedLength, in: bench.look())
  }

  @Test func `a device with event indices sets flags`() throws {
    let bench = try SplitBench { $0.eventIndex = true }
    bench.setUsedFlags(1)
    bench.expect(.deviceFlags, in: bench.look())
  }

  @Test(arguments: [true, false], [true, false])
  func `an interrupt is not sent`(eventIndex: Bool, isFirst: Bool) throws {
    let bench = try SplitBench { $0.eventIndex = eventIndex }
    if !isFirst { #expect(bench.call(rang: true).isEmpty) }
    bench.offerOne()
    bench.use(0, length: 0)
    bench.expect(.call, in: bench.call(rang: false))
  }

  @Test func `a turn ends with a used chain of which nobody knows`() throws {
    let bench = try SplitBench()
    #expect(bench.call(rang: true).isEmpty)
    bench.offerOne()
    bench.use(0, length: 0)
    bench.expect(.callAtTurnEnd, in: bench.endTurn())
  }

  @Test(arguments: [(0, true), (2, false), (2, true)] as [(UInt16, Bool)])
  func `a received frame lies in other buffers than it says`(buffers: UInt16, merged: Bool) throws {
    let bench = try SplitBench {
      $0.direction = .receive
      $0.mergedBuffers = merged
    }
    bench.write(0, length: 64, flags: Descriptor.isWritable)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.store(UInt8(buffers), at: 10)
    bench.use(0, length: 64)
    bench.expect(.receivedBuffers, in: bench.call(rang: true))
  }

  @Test func `a received frame is looked at whenever its driver has not taken it`() throws {
    let bench = try SplitBench {
      $0.direction = .receive
      $0.saysWhatItTakes = true
    }
    bench.write(0, length: 64, flags: Descriptor.isWritable)
    bench.offer(0)
    #expect(bench.look().isEmpty)
    bench.store(3, at: 10)
    bench.use(0, length: 64)
    bench.expect(.receivedBuffers, in: bench.look())
  }

  /// The first buffer came and went between two looks: what is in the second is no header.
  @Test func `a merged frame whose beginning was not seen is not judged`() throws {
    let bench = try SplitBench {
      $0.direction = .receive
      $0.mergedBuffers = true
      $0.saysWhatItTakes = true
    }
    for index in 0..<3 { bench.write(index, length: 64) }
    bench.offer(1)
    bench.offer(2)
    #expect(bench.look().isEmpty)
    bench.offer(0)
    bench.store(14, at: 10)
    bench.use(0, length: 64)
    bench.use(1, length: 64)
    #expect(bench.look().isEmpty)
  }

  /// After a look that came too late to tell which chains the device has.
  @Test func `a chain beyond the table is used when it is not known which ones there are`() throws {
    let bench = try SplitBench()
    for id in 0..<4 { bench.write(id, length: 64) }
    bench.offer(0, 1, 2)
    bench.use(0, length: 5)
    bench.use(1, length: 5)
    bench.offer(3)
    #expect(bench.look().isEmpty)
    bench.use(4, length: 5)
    bench.expect(.usedChain, in: bench.look())
  }

  @Test func `a received frame is shorter than its header`() throws {
    let bench = try SplitBench { $0.direction = .receive }
    bench.offerOne()
    #expect(bench.look().isEmpty)
    bench.store(1, at: 10)
    bench.use(0, length: 11)
    bench.expect(.receivedBuffers, in: bench.call(rang: true))
  }

  @Test func `the rest of a merged frame is not there`() throws {
    let bench = try SplitBench {
      $0.direction = .receive
      $0.mergedBuffers = true
    }
    for id in 0..<2 { bench.write(id, length: 64) }
    bench.offer(0, 1)
    #expect(bench.look().isEmpty)
    bench.store(2, at: 10)
    bench.use(0, length: 64)
    bench.expect(.receivedBuffers, in: bench.call(rang: true))
  }
}
