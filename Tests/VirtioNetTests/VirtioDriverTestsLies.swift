import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioNet

/// Invariant 6: what the device says about used buffers is never believed (VIRTIO 1.4 §2.7.8, §5.1.9).
@Suite(.timeLimit(.minutes(3))) struct VirtioDriverTestsLies {
  private static let transmitLies: [Lie] = [
    Lie("id just past the ring") { $0.transmit.show([(16, 0)]) },
    Lie("id of which the lower half is outstanding") { $0.transmit.show([(65_536, 0)]) },
    Lie("largest id") { $0.transmit.show([(.max, 0)]) },
    Lie("the same chain twice at once") { pair in
      guard let head = pair.transmit.take() else { return }
      pair.transmit.show([(UInt32(head), 0), (UInt32(head), 0)])
    },
    Lie("bytes written into a frame that is only read") { $0.transmit.giveBack(length: 1) },
    Lie("used.idx further than what is in flight") { $0.transmit.ring.usedIndex = 17 },
    Lie("used.idx half way round") { $0.transmit.ring.usedIndex = 0x8000 },
    Lie("used.idx backwards") { $0.transmit.ring.usedIndex = 0xffff },
    Lie("good chains, then a bad one") { pair in
      let good = (0..<3).compactMap { _ in pair.transmit.take() }
      pair.transmit.show(good.map { (UInt32($0), 0) } + [(16, 0)])
    },
  ]

  @Test(arguments: transmitLies)
  func `Driver rule 16: a lie about a transmitted frame breaks the queue and nothing else`(
    lie: Lie
  ) async throws { try await expectBroken(by: lie) }

  private static let packedTransmitLies: [Lie] = [
    Lie("id just past the ring") { $0.transmit.show([(16, 0)]) },
    Lie("largest id") { $0.transmit.show([(0xffff, 0)]) },
    Lie("the same chain twice at once") { pair in
      guard let head = pair.transmit.take() else { return }
      pair.transmit.show([(UInt32(head), 0), (UInt32(head), 0)])
    },
    Lie("bytes written into a frame that is only read") { $0.transmit.giveBack(length: 1) },
    Lie("good chains, then a bad one") { pair in
      let good = (0..<3).compactMap { _ in pair.transmit.take() }
      pair.transmit.show(good.map { (UInt32($0), 0) } + [(16, 0)])
    },
    Lie("chains out of order, then one of them again") { pair in
      let good = [5, 2, 0].compactMap { pair.transmit.take(at: $0) }
      pair.transmit.show(good.map { (UInt32($0), 0) } + [(5, 0)])
    },
  ]

  @Test(arguments: packedTransmitLies)
  func `Driver rule 16: a lie about a frame transmitted on a packed ring breaks the queue and nothing else`(
    lie: Lie
  ) async throws { try await expectBroken(by: lie, rings: .packed) }

  @Test(arguments: RingFormat.allCases)
  func `Driver rule 16: a chain that was never issued`(rings: RingFormat) async throws {
    try await expectBroken(by: Lie("") { $0.transmit.show([(13, 0)]) }, senders: 12, rings: rings)
  }

  @Test func `Driver rule 16: a chain that was given back before`() async throws {
    let lying = try await Lying()
    try await lying.queue.submit(Packet(copying: numbered(1), in: lying.pool))
    try await lying.queue.submit(Packet(copying: numbered(2), in: lying.pool))
    let outcome = Outcome()
    Task { await outcome.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
    try await eventually("both are published") { await lying.held() == 2 }
    let head = await lying.side.perform { pair -> UInt32 in
      let head = pair.transmit.held[0]
      pair.release(interrupt: .always)
      return UInt32(head)
    }
    try await eventually("the first is taken back") { lying.queue.statistics.packetsReleased == 1 }
    await lying.side.perform { pair in
      pair.transmit.show([(head ?? 0, 0)])
      pair.interrupt()
    }
    try await eventually("run ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.broken])
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
    try await lying.checkReopening()
  }

  @Test func `Driver rule 16: a descriptor in the middle of a chain`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.indirectDesc)
    let lying = try await Lying(configuration)
    // In flight already, it has its second header elsewhere.
    let packet = try Packet(copying: numbered(1), in: lying.pool)
    for _ in 0..<2 { try await lying.queue.submit(packet) }
    try await lying.queue.submit(Packet(copying: numbered(2), in: lying.pool))
    try await eventually("all are published") { await lying.held() == 3 }
    let outcome = Outcome()
    Task { await outcome.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
    await lying.side.perform { pair in
      let head = pair.transmit.ring.descriptor(pair.transmit.held[1])
      #expect(head.hasNext)
      pair.transmit.show([(UInt32(head.next), 0)])
      pair.interrupt()
    }
    try await eventually("run ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.broken])
    #expect(packet.array == numbered(1))
    withExtendedLifetime(consume packet) {}
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
    try await lying.checkReopening()
  }

  private static func use(_ pair: LyingPair, length: (UInt32) -> UInt32, header: VirtioNetHeader = .init(numBuffers: 1))
  {
    guard let element = pair.fill(numbered(1), pieces: [64], header: header)?.first else { return }
    guard let buffer = pair.receive.chain(UInt16(element.id)).first else { return }
    pair.receive.show([(element.id, length(buffer.length))])
  }

  private static let receiveLies: [Lie] = [
    Lie("no bytes") { use($0, length: { _ in 0 }) },
    Lie("one byte less than a header") { use($0, length: { _ in 11 }) },
    Lie("one byte more than the buffer") { use($0, length: { $0 + 1 }) },
    Lie("4 GiB") { use($0, length: { _ in .max }) },
    Lie("no buffers") { use($0, length: { _ in 76 }, header: .init(numBuffers: 0)) },
    Lie("65 535 buffers") { use($0, length: { _ in 76 }, header: .init(numBuffers: .max)) },
    Lie("one buffer more than the ring") { use($0, length: { _ in 76 }, header: .init(numBuffers: 17)) },
    Lie("one of two buffers is missing") { use($0, length: { _ in 76 }, header: .init(numBuffers: 2)) },
    Lie("the last of three buffers is missing, behind a good frame") { pair in
      let good = pair.fill(numbered(1), pieces: [64], header: .init(numBuffers: 1)) ?? []
      let bad = pair.fill(numbered(2, count: 90), pieces: [30, 30], header: .init(numBuffers: 3)) ?? []
      pair.receive.show(good + bad)
    },
    Lie("a good frame in two buffers, then one with a buffer missing") { pair in
      let good = pair.fill(numbered(1), pieces: [30, 34], header: .init(numBuffers: 2)) ?? []
      let bad = pair.fill(numbered(2), pieces: [64], header: .init(numBuffers: 2)) ?? []
      pair.receive.show(good + bad)
    },
    Lie("a dropped frame in two buffers, then one with a buffer missing") { pair in
      let dropped =
        pair.fill(
          numbered(1), pieces: [30, 34], header: .init(segmentation: .tcp4, segmentSize: 1, numBuffers: 2)) ?? []
      let bad = pair.fill(numbered(2), pieces: [64], header: .init(numBuffers: 2)) ?? []
      pair.receive.show(dropped + bad)
    },
    Lie("the second buffer longer than it is") { pair in
      var elements = pair.fill(numbered(1), pieces: [30, 34], header: .init(numBuffers: 2)) ?? []
      elements[1].length = 100_000
      pair.receive.show(elements)
    },
    Lie("the same buffer twice in one frame") { pair in
      guard let element = pair.fill(numbered(1), pieces: [64], header: .init(numBuffers: 2))?.first else { return }
      pair.receive.show([element, element])
    },
    Lie("id just past the ring") { $0.receive.show([(16, 76)]) },
    Lie("largest id") { $0.receive.show([(.max, 76)]) },
  ]

  @Test(arguments: receiveLies, RingFormat.allCases)
  func `Driver rules 16, 19: a lie about a received frame breaks the queue and nothing else`(
    lie: Lie, rings: RingFormat
  ) async throws { try await expectBroken(by: lie, rings: rings) }

  /// Packets that a program keeps.
  private final class Kept: Sendable {
    private let packets = Mutex<[Packet]>([])
    var count: Int { packets.withLock { $0.count } }
    func add(_ packet: Packet) { packets.withLock { $0.append(packet) } }
    func removeAll() { packets.withLock { $0 = [] } }
  }

  @Test(arguments: RingFormat.allCases, [false, true])
  func `Driver rule 16: a used buffer of a ring that has none breaks the queue; the loop does not turn for ever`(
    rings: RingFormat, inOrder: Bool
  ) async throws {
    var configuration = LyingDevice.Configuration()
    var options = VirtioNetDriver.Options()
    if inOrder { configuration.features.insert(.inOrder) }
    options.inOrder = inOrder
    let pool = try PacketPool(.init(slots: 64, hugePages: false))
    let lying = try await Lying(configuration, options: options, pool: pool, queueSize: 8, rings: rings)
    let queue = lying.queue
    let kept = Kept()
    let runner = Outcome()
    Task {
      await runner.record {
        try await lying.device.run { queue in for await packet in queue.packets { kept.add(packet) } }
      }
    }
    try await eventually("the program has every buffer") {
      await lying.side.perform { _ = $0.deliver(numbered(1), interrupt: .always) }
      return kept.count == 64
    }
    let before = queue.loop.statistics.turns
    await lying.side.perform { pair in
      pair.receive.show([(0, 76)])
      pair.interrupt()
    }
    try await eventually("run ends") { runner.finished == 1 }
    #expect(runner.errors.map { $0.code } == [.broken])
    #expect(queue.loop.statistics.turns - before < 1000)
    kept.removeAll()
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    try await lying.checkReopening()
  }

  private static let usedIndexLies: [Lie] = [
    Lie("used.idx further than what is posted") { $0.receive.ring.usedIndex = 17 },
    Lie("used.idx backwards") { $0.receive.ring.usedIndex = 0xffff },
  ]

  @Test(arguments: usedIndexLies)
  func `Driver rule 16: an index of the receive ring that cannot be breaks the queue and nothing else`(
    lie: Lie
  ) async throws { try await expectBroken(by: lie) }

  @Test(arguments: [0 as UInt16, 1, 2, 65_535])
  func `Driver rule 19: without MRG_RXBUF a frame has one buffer, whatever a lie says`(buffers: UInt16) async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.mrgRxbuf)
    if buffers > 1 {
      let lie = Lie("") { Self.use($0, length: { _ in 76 }, header: .init(numBuffers: buffers)) }
      return try await expectBroken(by: lie, configuration)
    }
    // Zero is what vhost-net left in the field until Linux 6.14.
    let lying = try await Lying(configuration)
    let queue = lying.queue
    await lying.side.perform { pair in
      _ = pair.deliver(numbered(1), header: .init(numBuffers: buffers), interrupt: .always)
    }
    for await packet in queue.packets {
      #expect(packet.array == numbered(1))
      break
    }
    try await lying.closeAndCheck()
  }

  @Test
  func `Driver rule 16: what the driver only writes, descriptors and available ring, may be rewritten without effect`()
    async throws
  {
    let lying = try await Lying()
    let queue = lying.queue
    let rings = try #require(await lying.side.rings())
    let scribbler = Task.detached {
      var value: UInt16 = 1
      while !Task.isCancelled {
        value = value &* 25_173 &+ 13_849
        // Other tests need this thread of the pool too.
        if value & 0x3f == 0 { await Task.yield() }
        for ring in [rings.receive, rings.transmit] {
          // Not those that the honest half of this device reads: heads at hand lie ahead, these are read back by nobody.
          ring.overwriteSuppression(flags: value, usedEvent: value)
        }
      }
    }
    await lying.side.perform { pair in
      pair.whenKicked = { pair in
        // Heads are taken first; then everything that the driver wrote is spoilt, then the chains are given back.
        let frames = pair.transmit.held.indices.compactMap { pair.transmitted(at: $0)?.frame }
        for id in 0..<UInt16(16) {
          pair.transmit.ring.overwrite(descriptor: id, with: .init(address: .max, length: .max, flags: 7, next: 0xffff))
          pair.transmit.ring.overwrite(availableAt: id, with: 0xffff)
        }
        for frame in frames { _ = pair.deliver(frame, interrupt: .always) }
        pair.releaseAll(interrupt: .always)
        pair.transmit.armKicks()
      }
    }
    // One at a time: a frame is delivered before its buffer is released, and the device never lacks receive buffers.
    var packets = queue.packets.makeAsyncIterator()
    for number in 0..<500 {
      try await queue.send(Packet(copying: numbered(number), in: lying.pool))
      #expect(await packets.next()?.number == number)
    }
    scribbler.cancel()
    await scribbler.value
    try await lying.closeAndCheck()
  }

  @Test func `Driver rule 16: used elements that change after they were shown are read once`() async throws {
    for _ in 0..<20 {
      let lying = try await Lying()
      let rings = try #require(await lying.side.rings())
      let outcome = Outcome()
      Task { await outcome.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
      let sends = (0..<16).map { _ in Outcome() }
      for (number, send) in sends.enumerated() {
        let packet = try Packet(copying: numbered(number), in: lying.pool)
        Task { await send.record { try await lying.queue.send(packet) } }
      }
      try await eventually("all are published") { await lying.held() == 16 }
      // From another thread, while the driver reads: true ids, and others.
      let scribbler = Task.detached {
        for round in 0..<2000 as Range<UInt32> {
          for position in 0..<UInt16(16) {
            rings.transmit.setUsed(at: position, id: round & 1 == 0 ? UInt32(position) : round, length: 0)
          }
          if round == 200 { rings.transmit.usedIndex = 16 }
        }
      }
      await scribbler.value
      await lying.side.perform { $0.interrupt() }
      try await eventually("every send ends, or the queue is broken") {
        sends.allSatisfy { $0.finished == 1 } || outcome.finished == 1
      }
      try? await lying.device.close()
      try await eventually("every send ends once") { sends.allSatisfy { $0.finished == 1 } }
      try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
    }
  }
}
