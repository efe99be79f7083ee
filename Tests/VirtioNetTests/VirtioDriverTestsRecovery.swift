import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioNet

/// A device that is lost and comes back: what was in flight, what was received, who waits, and whose the buffers are.
@Suite(.quietLoops, .timeLimit(.minutes(5))) struct VirtioDriverTestsRecovery {
  /// Starts numbered sends one after the other, so that they are in the ring in this order.
  static func send(_ numbers: Range<Int>, _ lying: Lying) async throws -> [Outcome] {
    let queue = lying.queue
    var sends: [Outcome] = []
    for number in numbers {
      let outcome = Outcome()
      let before = queue.statistics.packetsSubmitted
      let packet = try Packet(copying: numbered(number), in: lying.pool)
      Task { await outcome.record { try await queue.send(packet) } }
      try await eventually("it is published") { queue.statistics.packetsSubmitted > before }
      sends.append(outcome)
    }
    return sends
  }

  /// The numbers of the frames that the device holds, in its order.
  static func heldNumbers(_ lying: Lying) async -> [Int] {
    await lying.side.perform { pair in
      pair.transmit.held.indices.map { position in
        let frame = pair.transmitted(at: position)?.frame ?? []
        return (0..<8).reduce(0) { $0 | (frame.count > $1 ? Int(frame[$1]) << ($1 * 8) : 0) }
      }
    } ?? []
  }

  /// A world's device went on reading its rings when another task had closed it: the buffers were others' by then, and it saw
  /// other bytes than were sent. (Seed 1010080 of the world "peer-lost".)
  @Test(arguments: RingFormat.allCases)
  func `a device knows that its rings are over, whether it was lost or reset`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings)
    func isOver() async -> Bool? { await lying.side.perform { $0.isOver } }
    #expect(await isOver() == false)
    try await lying.loseAndRegain()
    #expect(await isOver() == false, "it is another pair")
    try await lying.device.close()
    #expect(await isOver() == true)
  }

  @Test(arguments: RingFormat.allCases)
  func `frames in flight are submitted again, in order, before newer ones; each send completes once`(
    _ rings: RingFormat
  ) async throws {
    let lying = try await Lying.lookedFor(rings)
    let changes = lying.device.linkChanges
    let sends = try await Self.send(0..<12, lying)
    // Out of order and once around the table, so that its order is not that of publication.
    await lying.side.perform { pair in for position in [7, 2, 0] { pair.release(at: position) } }
    let refilled = try await Self.send(12..<18, lying)
    let left = [1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    #expect(await Self.heldNumbers(lying) == left)
    try await lying.loseAndRegain()
    #expect(await Self.heldNumbers(lying) == left)
    let newer = try await Self.send(18..<19, lying)
    #expect(await Self.heldNumbers(lying) == left + [18])
    await lying.side.perform { $0.releaseAll() }
    let all = sends + refilled + newer
    try await eventually("every send ends") { all.allSatisfy { $0.finished == 1 } }
    #expect(all.allSatisfy { $0.errors.isEmpty })
    let statistics = lying.queue.statistics
    #expect(statistics.driver.resubmitted == 15)
    #expect(statistics.packetsReleased == 19)
    try await lying.closeAndCheck()
    #expect(all.allSatisfy { $0.finished == 1 })
    var seen: [Bool] = []
    for await change in changes { if case .up = change { seen.append(true) } else { seen.append(false) } }
    #expect(seen == [false, true])
  }

  @Test(arguments: RingFormat.allCases)
  func `with the other policy sends in flight fail with the cause, and the queue goes on`(_ rings: RingFormat)
    async throws
  {
    let lying = try await Lying.lookedFor(rings, .fail)
    let sends = try await Self.send(0..<8, lying)
    await lying.side.perform { $0.release() }
    try await lying.loseAndRegain()
    try await eventually("every send ends") { sends.allSatisfy { $0.finished == 1 } }
    #expect(sends.flatMap { $0.errors }.map { $0.code } == Array(repeating: .frameLost, count: 7))
    #expect(sends[0].errors.isEmpty)
    let next = try await Self.send(8..<9, lying)
    #expect(await Self.heldNumbers(lying) == [8])
    await lying.side.perform { $0.releaseAll() }
    try await eventually("it completes") { next[0].finished == 1 && next[0].errors.isEmpty }
    try await lying.closeAndCheck()
  }

  @Test(arguments: RingFormat.allCases)
  func `a pipeline goes on where a lost device has taken its frames along`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings, .fail)
    let (queue, pool) = (lying.queue, lying.pool)
    let (packets, source) = AsyncStream<Packet>.makeStream()
    let outcome = Outcome()
    let forwarding = Task { await outcome.record { try await queue.forward(from: packets) } }
    for number in 0..<4 { source.yield(try Packet(copying: numbered(number), in: pool)) }
    try await eventually("the device has them") { await lying.held() == 4 }
    try await lying.loseAndRegain()
    try await eventually("they have failed") { queue.statistics.packetsFailed == 4 }
    source.yield(try Packet(copying: numbered(4), in: pool))
    try await eventually("it goes on") { await lying.held() == 1 }
    await lying.side.perform { $0.releaseAll() }
    source.finish()
    await forwarding.value
    #expect(outcome.finished == 1 && outcome.errors.isEmpty)
    try await lying.closeAndCheck()
  }

  @Test(arguments: RingFormat.allCases)
  func `a buffer that somebody else holds goes again with the same bytes`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings)
    try await Self.loseWithSharedBuffer(lying)
    try await lying.closeAndCheck()
  }

  /// In a function of its own: the packets are gone when it returns.
  static func loseWithSharedBuffer(_ lying: Lying) async throws {
    let queue = lying.queue
    var packet = try Packet(copying: numbered(5), in: lying.pool)
    let outcome = Outcome()
    let sent = packet
    Task { await outcome.record { try await queue.send(sent) } }
    try await eventually("it is published") { queue.statistics.packetsSubmitted == 1 }
    packet.withMutableBytes { $0.storeBytes(of: 0xff, toByteOffset: 0, as: UInt8.self) }
    try await lying.loseAndRegain()
    #expect(await heldNumbers(lying) == [5])
    #expect(packet.array[0] == 0xff)
    await lying.side.perform { $0.releaseAll() }
    try await eventually("it completes") { outcome.finished == 1 && outcome.errors.isEmpty }
  }

  @Test(arguments: RingFormat.allCases)
  func `what had arrived is received, and then what arrives at the new rings, by the same loop`(_ rings: RingFormat)
    async throws
  {
    let lying = try await Lying.lookedFor(rings)
    let queue = lying.queue
    // Nobody receives yet: these lie in the ring when the device is lost, one of them in several buffers.
    await lying.side.perform { pair in
      for number in 0..<5 { pair.deliver(numbered(number)) }
      pair.deliver(numbered(5), pieces: [20, 20, 24])
    }
    try await lying.loseAndRegain()
    let tally = Mutex<[Int]>([])
    let receiver = Task { for await packet in queue.packets { tally.withLock { $0.append(packet.number) } } }
    try await eventually("what had arrived is there") { tally.withLock { $0 } == [0, 1, 2, 3, 4, 5] }
    try await lying.loseAndRegain()
    await lying.side.perform { pair in for number in 6..<9 { pair.deliver(numbered(number)) } }
    try await eventually("what arrives is there") { tally.withLock { $0 } == Array(0..<9) }
    try await lying.device.close()
    await receiver.value
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
  }

  @Test(arguments: RingFormat.allCases)
  func `releases are seen while nobody fetches what the lost device had delivered`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings)
    await lying.side.perform { pair in for number in 0..<3 { pair.deliver(numbered(number)) } }
    try await lying.loseAndRegain()
    let sends = try await Self.send(0..<2, lying)
    await lying.side.perform { $0.releaseAll() }
    try await eventually("they complete") { sends.allSatisfy { $0.finished == 1 } }
    try await lying.closeAndCheck()
  }

  @Test(arguments: RingFormat.allCases)
  func `buffers that the lost device could still write to are kept aside until it is gone`(_ rings: RingFormat)
    async throws
  {
    let lying = try await Lying.lookedFor(rings)
    let queue = lying.queue
    let gone = Holder(isGone: false)
    let old = try #require(await lying.side.rings())
    let posted = await lying.side.perform { pair in pair.receive.held.flatMap { pair.receive.chain($0) } } ?? []
    try #require(posted.count == 16)
    try await lying.loseAndRegain(isGone: { gone.isGone })
    #expect(queue.statistics.driver.quarantined == 16)
    try await eventually("other buffers are posted") {
      await lying.side.perform { $0.receive.held.count } == 16
    }
    let fresh = await lying.side.perform { pair in pair.receive.held.flatMap { pair.receive.chain($0) } } ?? []
    #expect(Set(fresh.map { $0.address }).isDisjoint(with: posted.map { $0.address }))
    // The zombie writes to what it had; what is received meanwhile is untouched by it.
    await lying.side.perform { pair in pair.deliver(numbered(1)) }
    for buffer in posted { _ = old.receive.write([UInt8](repeating: 0xee, count: 64), at: buffer.address) }
    var iterator = queue.packets.makeAsyncIterator()
    #expect(await iterator.next()?.array == numbered(1))
    gone.isGone = true
    lying.side.requestAttention()
    try await eventually("they are given back") { queue.statistics.driver.quarantined == 0 }
    try await lying.closeAndCheck()
  }

  @Test(arguments: RingFormat.allCases)
  func `senders wait while the device is away, and none is lost`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings)
    let queue = lying.queue
    lying.side.isThere = false
    lying.side.lose(isGone: { true })
    try await eventually("the link is down") { !lying.device.isLinkUp }
    let tally = Tally(200)
    let sends = (0..<200).map { _ in Outcome() }
    for (number, send) in sends.enumerated() {
      let packet = try Packet(copying: numbered(number), in: lying.pool)
      Task { await send.record { try await queue.send(packet) } }
    }
    try await eventually("some wait") { queue.statistics.ringFull > 0 }
    #expect(sends.allSatisfy { $0.finished == 0 })
    lying.side.isThere = true
    try await eventually("the link is up") { lying.device.isLinkUp }
    await lying.side.perform { pair in
      pair.whenKicked = { pair in
        while let frame = pair.transmitted()?.frame {
          tally.add((0..<8).reduce(0) { $0 | Int(frame[$1]) << ($1 * 8) })
          pair.release()
        }
        pair.transmit.armKicks()
      }
      pair.whenKicked?(pair)
    }
    try await eventually("every send ends") { sends.allSatisfy { $0.finished == 1 && $0.errors.isEmpty } }
    #expect(tally.allOnce)
    try await lying.closeAndCheck()
  }

  @Test(arguments: RingFormat.allCases)
  func `a device that comes back with less is a typed error for everybody`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings)
    let queue = lying.queue
    let sends = try await Self.send(0..<4, lying)
    let runner = Outcome()
    Task { await runner.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
    lying.side.offer([.version1, .mac, .status, .indirectDesc, .eventIndex])
    lying.side.lose(isGone: { true })
    try await eventually("run ends") { runner.finished == 1 }
    #expect(runner.errors.map { $0.code } == [.unsupported])
    #expect(runner.errors.first?.offered.contains("mrgRxbuf") == true, "\(runner.errors)")
    try await eventually("every send ends") { sends.allSatisfy { $0.finished == 1 } }
    #expect(sends.allSatisfy { $0.errors.map { $0.code } == [.unsupported] })
    await #expect(throws: NetworkDeviceError.self) { try await queue.closed() }
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
  }

  @Test(arguments: RingFormat.allCases, [8, 15])
  func `a device that comes back with queues too small for the rings is a typed error`(
    _ rings: RingFormat, _ largest: Int
  ) async throws {
    let lying = try await Lying.lookedFor(rings)
    let runner = Outcome()
    Task { await runner.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
    // As large as they were is enough.
    lying.side.offer(maximumQueueSize: 16)
    try await lying.loseAndRegain()
    lying.side.offer(maximumQueueSize: largest)
    lying.side.lose(isGone: { true })
    try await eventually("run ends") { runner.finished == 1 }
    #expect(runner.errors.map { $0.code } == [.unsupported])
    #expect(runner.errors.first?.offered.contains("queues of 16 descriptors") == true, "\(runner.errors)")
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
  }

  @Test(arguments: RingFormat.allCases)
  func `closing while the device is looked for ends at once, and everything that waits`(_ rings: RingFormat)
    async throws
  {
    let lying = try await Lying.lookedFor(rings)
    let sends = try await Self.send(0..<4, lying)
    lying.side.isThere = false
    lying.side.lose(isGone: { true })
    try await eventually("it is looked for") { lying.side.events.count { $0 == .connect } > 3 }
    try await lying.closeAndCheck()
    #expect(sends.allSatisfy { $0.finished == 1 && $0.errors.map { $0.code } == [.closed] })
    let attempts = lying.side.events.count { $0 == .connect }
    try await Task.sleep(for: .milliseconds(50))
    #expect(lying.side.events.count { $0 == .connect } == attempts)
  }

  @Test func `without a policy a lost device breaks its queues`() async throws {
    let lying = try await Lying()
    let sends = try await Self.send(0..<4, lying)
    lying.side.lose(isGone: { true })
    try await eventually("every send ends") { sends.allSatisfy { $0.finished == 1 } }
    #expect(sends.allSatisfy { $0.errors.map { $0.code } == [.broken] })
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
  }

  @Test(arguments: RingFormat.allCases)
  func `losses one after the other under load lose no frame and no buffer`(_ rings: RingFormat) async throws {
    let lying = try await Lying.lookedFor(rings, slots: 1024)
    let queue = lying.queue
    let count = 3000
    let tally = Tally(count)
    let received = Task { for await packet in queue.packets { tally.add(packet.number) } }
    let looping = Task {
      while !Task.isCancelled {
        await lying.side.perform { pair in
          pair.loopBack()
          pair.interrupt()
        }
        await Task.yield()
      }
    }
    let losing = Task {
      while !Task.isCancelled {
        try await Task.sleep(for: .milliseconds(3))
        lying.side.lose(isGone: { true })
      }
    }
    let sends = (0..<8).map { sender in
      Task {
        for number in stride(from: sender, to: count, by: 8) {
          try await queue.send(Packet(copying: numbered(number), in: lying.pool))
        }
      }
    }
    for send in sends { try await send.value }
    losing.cancel()
    try await eventually("every frame came back") { tally.allSeen }
    #expect(queue.statistics.driver.recoveries > 3)
    looping.cancel()
    try await lying.device.close()
    await received.value
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
  }
}

/// A flag that several threads see.
private final class Holder: Sendable {
  private let value: Atomic<Bool>
  init(isGone: Bool) { value = Atomic(isGone) }
  var isGone: Bool {
    get { value.load(ordering: .acquiring) }
    set { value.store(newValue, ordering: .releasing) }
  }
}
