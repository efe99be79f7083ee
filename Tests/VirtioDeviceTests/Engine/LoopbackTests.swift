import CNetdevSystem
import Foundation
import Glibc
import Synchronization
import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// Frames through the loopback, byte by byte.
@Suite(.serialized) struct LoopbackTests {
  @Test
  func `Device rule 11: frames of 1 to 1514 bytes come back unchanged, and nothing beyond the used length is written`()
    throws
  {
    let rig = try Rig()
    for length in 1...1514 {
      let buffer = rig.offerReceive([1526])
      let frame = pattern(length, seed: length)
      let sent = rig.offerTransmit(frame: frame)
      rig.serve()
      let used = try #require(rig.receive.takeUsed())
      #expect(used.id == UInt32(buffer.head))
      #expect(Int(used.written) == 12 + length)
      expectSame(rig.contents(buffer, 12 + length), plainHeader() + frame)
      // §2.7.8.1: no byte beyond what the used length says has been written.
      #expect(rig.contents(buffer, 1526).suffix(1514 - length).allSatisfy { $0 == 0xEE })
      let released = try #require(rig.transmit.takeUsed())
      #expect(released.id == UInt32(sent.head) && released.written == 0)
    }
    #expect(rig.engine.statistics.receivedFrames == 1514)
    #expect(rig.engine.statistics.transmittedBytes == UInt64((1...1514).reduce(0, +)))
  }

  @Test(arguments: [
    [1], [1, 1, 1], [Int](repeating: 1, count: 13), [12], [5], [12, 100, 100], [3, 3, 3, 3, 3], [20, 0, 5],
  ])
  func `Device rule 7: a header and a frame may be split over buffers in any way, §5.1.9.2.2`(_ pieces: [Int]) throws {
    let rig = try Rig()
    let frame = pattern(500)
    for receivePieces in [
      [1526], [4, 4, 4, 600], [12, 600], [13, 99, 500], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 600],
    ] {
      let buffer = rig.offerReceive(receivePieces)
      rig.offerTransmit(frame: frame, pieces: pieces)
      rig.serve()
      #expect(rig.receive.takeUsed()?.written == 512)
      expectSame(rig.contents(buffer, 512), plainHeader() + frame)
    }
  }

  @Test
  func `Device rule 9: a merged frame fills all but the last, the count is exact, and all are exposed together`()
    throws
  {
    let rig = try Rig()
    for (length, count) in [(100, 1), (244, 1), (245, 2), (500, 2), (501, 3), (1514, 6), (9014, 36)] {
      let buffers = (0..<40).map { _ in rig.offerReceive([256]) }
      let frame = pattern(length)
      rig.offerTransmit(frame: frame)
      let before = rig.receive.usedCount
      rig.engine.kickTransmit()
      var turns = 0
      // The first turn that shows any of the buffers shows all of them.
      while rig.receive.usedCount == before, turns < 10 {
        rig.hand.turn()
        turns += 1
      }
      #expect(rig.receive.usedCount == count)
      rig.hand.settle()
      var bytes: [UInt8] = []
      for index in 0..<count {
        let used = try #require(rig.receive.takeUsed())
        #expect(used.id == UInt32(buffers[index].head))
        if index < count - 1 { #expect(used.written == 256) }
        bytes += rig.contents(buffers[index], Int(used.written))
      }
      expectSame(bytes, plainHeader(buffers: UInt16(count)) + frame)
      #expect(rig.receive.takeUsed() == nil)
      // What was not used is still there: take it by sending small frames.
      for _ in count..<40 { rig.offerTransmit(frame: [1]) }
      rig.serve()
      for _ in count..<40 { #expect(rig.receive.takeUsed()?.written == 13) }
    }
  }

  /// A driver's other thread: it polls the used ring and counts frames of which it does not see every buffer.
  private static func poll(
    used: UInt, buffers: UInt, spacing: UInt, size: UInt16, until stop: borrowing Atomic<Bool>,
    seen: borrowing Atomic<UInt64>
  ) -> (frames: Int, torn: Int) {
    var (frames, torn) = (0, 0)
    var next: UInt16 = 0
    while let ring = unsafe UnsafeRawPointer(bitPattern: used) {
      let index = unsafe netdev_load_acquire_u16(ring + 2)
      if index == next {
        if stop.load(ordering: .acquiring) { break }
        continue
      }
      let head = unsafe (ring + 4 + 8 * Int(next % size)).load(as: UInt32.self)
      guard let buffer = unsafe UnsafeRawPointer(bitPattern: buffers + spacing * UInt(head)) else { break }
      let count = unsafe (buffer + 10).loadUnaligned(as: UInt16.self)
      frames += 1
      guard count > 0 else { break }
      if index &- next < count { torn += 1 }
      // What was torn is waited for: the next frame's header is looked for behind it.
      while unsafe netdev_load_acquire_u16(ring + 2) &- next < count, !stop.load(ordering: .acquiring) {}
      next &+= count
      seen.add(UInt64(count), ordering: .acquiringAndReleasing)
    }
    return (frames, torn)
  }

  @Test func `Device rule 9: a driver that polls meanwhile never sees a part of a merged frame`() throws {
    let size = 64
    let rig = try Rig(queueSize: size)
    let spacing = 256
    let place = rig.allocate(spacing * size)
    for head in 0..<size {
      rig.receive.write(
        LyingDriverRing.Descriptor(
          address: place + UInt64(spacing * head), length: UInt32(spacing), flags: LyingDriverRing.Descriptor.isWritable
        ),
        at: head)
      rig.receive.offer(UInt16(head))
    }
    rig.receive.publish()
    let stop = Atomic<Bool>(false)
    let seen = Atomic<UInt64>(0)
    let result = Mutex((frames: 0, torn: 0))
    // Addresses: the other thread shares nothing with the rig but the driver's memory.
    let used = unsafe UInt(bitPattern: rig.block + rig.receive.layout.deviceOffset)
    let buffers = unsafe UInt(bitPattern: rig.pointer(place))
    let poller = Thread {
      let found = Self.poll(
        used: used, buffers: buffers, spacing: UInt(spacing), size: UInt16(size), until: stop, seen: seen)
      result.withLock { $0 = found }
    }
    poller.start()
    // Eight frames of seven buffers a round: 56 of the 64.
    let rounds = 500
    for round in 0..<rounds {
      for index in 0..<8 { rig.offerTransmit(frame: pattern(1600, seed: round + index)) }
      rig.serve()
      // The elements are not used again before the other thread has read them.
      while seen.load(ordering: .acquiring) < UInt64(56 * (round + 1)), !poller.isFinished { sched_yield() }
      while let element = rig.receive.takeUsed() { rig.receive.offer(UInt16(truncatingIfNeeded: element.id)) }
      rig.receive.publish()
      while rig.transmit.takeUsed() != nil {}
    }
    stop.store(true, ordering: .releasing)
    while !poller.isFinished { usleep(100) }
    #expect(result.withLock { $0.frames } == 8 * rounds)
    #expect(result.withLock { $0.torn } == 0)
  }

  @Test func `without mergeable buffers a frame that does not fit its buffer is dropped, and the buffer stays`() throws
  {
    let rig = try Rig(features: [.version1, .mac])
    let buffer = rig.offerReceive([100])
    rig.offerReceive([1526])
    rig.offerTransmit(frame: pattern(89))
    rig.offerTransmit(frame: pattern(88))
    rig.serve()
    #expect(rig.engine.statistics.drops[.receiveBufferTooSmall] == 1)
    let used = try #require(rig.receive.takeUsed())
    #expect(used.id == UInt32(buffer.head) && used.written == 100)
    expectSame(rig.contents(buffer, 100), plainHeader() + pattern(88))
    #expect(rig.receive.takeUsed() == nil)
    #expect(rig.transmit.usedCount == 2)
  }

  @Test func `Device rule 10: a large frame with too few buffers is dropped whole and takes none of them`() throws {
    let rig = try Rig()
    let buffer = rig.offerReceive([1526])
    rig.offerTransmit(frame: pattern(9000))
    rig.offerTransmit(frame: pattern(60, seed: 3))
    rig.serve()
    #expect(rig.engine.statistics.drops[.noReceiveBuffer] == 1)
    #expect(rig.receive.takeUsed()?.written == 72)
    expectSame(rig.contents(buffer, 72), plainHeader() + pattern(60, seed: 3))
    #expect(rig.transmit.usedCount == 2)
  }

  @Test func `without buffers frames are dropped and counted; lossless, they wait on the transmit ring`() throws {
    let lossy = try Rig()
    for _ in 0..<10 { lossy.offerTransmit(frame: [1, 2, 3]) }
    lossy.serve()
    #expect(lossy.transmit.usedCount == 10)
    #expect(lossy.engine.statistics.drops[.noReceiveBuffer] == 10)

    let lossless = try Rig(backend: LoopbackBackend(lossless: true))
    for index in 0..<10 { lossless.offerTransmit(frame: pattern(2000, seed: index)) }
    lossless.serve()
    #expect(lossless.transmit.usedCount == 0)
    // Each frame needs three buffers: the kick for the receive ring must come for each one that is still missing.
    for index in 0..<10 {
      var buffers: [Rig.Buffer] = []
      for count in 1...3 {
        buffers.append(lossless.offerReceive([900]))
        #expect(lossless.wantsReceiveKick, "buffer \(count) of frame \(index)")
        lossless.engine.kickReceive()
        lossless.hand.settle()
        #expect(lossless.transmit.usedCount == (count == 3 ? index + 1 : index))
      }
      let bytes = buffers.flatMap { lossless.contents($0, 900) }
      expectSame(Array(bytes.prefix(2012)), plainHeader(buffers: 3) + pattern(2000, seed: index))
    }
    #expect(lossless.engine.statistics.drops.total == 0)
  }

  @Test func `lossless, a frame whose buffers are in more pieces than a batch takes is dropped, and the loop rests`()
    throws
  {
    let rig = try Rig(backend: LoopbackBackend(lossless: true), queueSize: 8)
    // One chain of three pieces, offered eight times: room for 672 bytes, of which a batch of 16 pieces takes 420.
    let place = rig.allocate(84)
    for piece in 0..<3 {
      let isLast = piece == 2
      rig.receive.write(
        LyingDriverRing.Descriptor(
          address: place + UInt64(28 * piece), length: 28,
          flags: LyingDriverRing.Descriptor.isWritable | (isLast ? 0 : LyingDriverRing.Descriptor.hasNext),
          next: UInt16(isLast ? 0 : piece + 1)), at: piece)
    }
    for _ in 0..<8 { rig.receive.offer(0) }
    rig.receive.publish()
    rig.offerTransmit(frame: pattern(496))
    rig.engine.kickTransmit()
    #expect(rig.hand.settle() < 10_000)
    #expect(rig.engine.statistics.drops[.noReceiveBuffer] == 1)
    #expect(rig.transmit.usedCount == 1)
    // What fits is carried as before.
    rig.offerTransmit(frame: pattern(64))
    rig.serve()
    #expect(rig.receive.takeUsed()?.written == 76)
  }

  @Test func `Device rule 4: indirect chains are carried, after direct descriptors too`() throws {
    let rig = try Rig()
    for direct in [0, 1, 2] {
      let buffer = rig.offerReceive([1526])
      let bytes = [UInt8](repeating: 0, count: 12) + pattern(300)
      // Five pieces of which the first are in the ring's table and the rest in an indirect one.
      let lengths = [7, 5, 100, 100, 100]
      var done = 0
      var pieces: [(UInt64, Int)] = []
      for length in lengths {
        let address = rig.allocate(length)
        rig.store(Array(bytes[done..<(done + length)]), at: address)
        pieces.append((address, length))
        done += length
      }
      let table = (rig.allocate(16 * 8) + 7) & ~7
      for index in direct..<5 {
        let isLast = index == 4
        rig.write(
          LyingDriverRing.Descriptor(
            address: pieces[index].0, length: UInt32(pieces[index].1),
            flags: isLast ? 0 : LyingDriverRing.Descriptor.hasNext, next: UInt16(isLast ? 0 : index - direct + 1)),
          at: index - direct, table: table)
      }
      for index in 0..<direct {
        rig.transmit.write(
          LyingDriverRing.Descriptor(
            address: pieces[index].0, length: UInt32(pieces[index].1), flags: LyingDriverRing.Descriptor.hasNext,
            next: UInt16(40 + index + 1)), at: 40 + index)
      }
      rig.transmit.write(
        LyingDriverRing.Descriptor(
          address: table, length: UInt32(16 * (5 - direct)), flags: LyingDriverRing.Descriptor.isIndirect),
        at: 40 + direct)
      rig.transmit.offer(40)
      rig.transmit.publish()
      rig.serve()
      #expect(rig.receive.takeUsed()?.written == 312)
      expectSame(rig.contents(buffer, 312), plainHeader() + pattern(300))
    }
  }
}

extension Rig {
  /// Whether the device has asked to be told of the buffer that was just offered, with EVENT_IDX.
  var wantsReceiveKick: Bool {
    EventIndex.isPassed(receive.availEvent, from: receive.availIndex &- 1, to: receive.availIndex)
  }

  /// The same for frames.
  var wantsTransmitKick: Bool {
    EventIndex.isPassed(transmit.availEvent, from: transmit.availIndex &- 1, to: transmit.availIndex)
  }
}
