import LibeventConcurrency
import Logging
import Netdev
import NetdevDevices
import NetdevTesting
import TestSupport
import Testing
import VirtioNet

/// Frames that go from one device to another: one pool, one loop a pair of queues, no copy.
@Suite(.timeLimit(.minutes(4))) struct ForwardTests {
  /// Two devices on one pool and shared loops.
  static func open(
    _ left: any NetworkDriver, _ right: any NetworkDriver, pool: PacketPool? = nil
  ) async throws -> (left: NetworkDevice, right: NetworkDevice) {
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    configuration.logger.logLevel = .error
    let devices = try await NetworkDevice.open(drivers: [left, right], configuration: configuration)
    return (devices[0], devices[1])
  }

  @Test func `a frame goes out from the very buffer that it came in by, and the buffer goes back to be received into`()
    async throws
  {
    let (input, output) = (LyingDevice(), LyingDevice())
    let (from, to) = try await Self.open(VirtioNetDriver(transport: input), VirtioNetDriver(transport: output))
    let (pool, source, sink) = (from.pool, from.queues[0], to.queues[0])
    #expect(source.loop === sink.loop && to.pool === pool)
    let outcome = Outcome()
    Task { await outcome.record { try await sink.forward(from: source.packets) } }
    for number in 0..<2000 {
      let posted = await input.perform { pair in
        pair.receive.held.first.flatMap { pair.receive.ring.chain($0).first?.address }
      }
      await input.perform { pair in _ = pair.deliver(numbered(number)) }
      try await eventually("frame \(number) is there") { await output.perform { $0.transmit.held.count } == 1 }
      let (address, bytes) =
        await output.perform { pair in
          (pair.transmittedChain().first?.address, pair.transmitted()?.frame)
        } ?? (nil, nil)
      // Both devices know the pool by the same address: the net header goes where the other's was.
      guard let address, address == posted ?? nil, bytes == numbered(number) else {
        Issue.record("frame \(number): \(String(describing: posted)) in, \(String(describing: address)) out")
        break
      }
      await output.perform { _ = $0.release() }
    }
    #expect(sink.statistics.copiedToSend == 0)
    #expect(pool.copies == 0 && pool.linearCopies == 0)
    try await from.close()
    try await eventually("it ends with its source") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await to.close()
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  /// The first packets of a queue, each expected to be the next of `frames` that go round.
  struct Round: PacketSequence {
    let base: NetworkQueue.Packets
    let frames: Int
    let count: Int

    func makeAsyncIterator() -> Iterator { Iterator(base: base.makeAsyncIterator(), frames: frames, count: count) }

    struct Iterator: PacketIterator {
      var base: NetworkQueue.Packets.Iterator
      let frames: Int
      let count: Int
      var seen = 0

      private mutating func check(_ packet: borrowing Packet) {
        if packet.number != seen % frames { Issue.record("packet \(seen) is number \(packet.number)") }
        seen += 1
      }

      mutating func takePacket() -> Packet? {
        guard seen < count, let packet = base.takePacket() else { return nil }
        check(packet)
        return packet
      }

      nonisolated(nonsending) mutating func nextPacket() async -> Packet? {
        guard seen < count, let packet = await base.nextPacket() else { return nil }
        check(packet)
        return packet
      }
    }
  }

  @Test(arguments: ["loopback:", "loopback:?placement=own"], [1, 64, 200])
  func `both directions at once: a hundred thousand frames each way, in order, none lost, none copied`(
    _ url: String, _ frames: Int
  ) async throws {
    let devices = try await NetworkDevice.open([url, url])
    let (left, right) = (devices[0].queues[0], devices[1].queues[0])
    let pool = left.pool
    for number in 0..<frames { try await left.submit(Packet(copying: numbered(number), in: pool)) }
    let count = repetitions(frames == 1 ? 10_000 : 100_000)
    async let there: Void = right.forward(from: Round(base: left.packets, frames: frames, count: count))
    async let back: Void = left.forward(from: Round(base: right.packets, frames: frames, count: count))
    _ = try await (there, back)
    for queue in [left, right] {
      let statistics = queue.statistics
      #expect(statistics.packetsReceived >= UInt64(count))
      #expect(statistics.copiedToSend == 0 && statistics.packetsFailed == 0)
    }
    #expect(pool.copies == 0)
    for device in devices { try await device.close() }
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `two pairs of queues each: pair i of both devices is on one loop, and no other`() async throws {
    let devices = try await NetworkDevice.open(["loopback:?queues=2", "loopback:?queues=2"])
    let loops = devices.map { $0.queues.map { ObjectIdentifier($0.loop) } }
    #expect(loops[0] == loops[1] && Set(loops[0]).count == 2)
    let pool = devices[0].pool
    // The same loops for a third device, by hand, with fewer loops than pairs.
    var configuration = NetworkDevice.Configuration()
    configuration.loops = [devices[0].queues[1].loop]
    configuration.pool = pool
    let third = try await NetworkDevice.open("loopback:?queues=2", configuration: configuration)
    #expect(third.queues.allSatisfy { $0.loop === devices[0].queues[1].loop })
    let target = third.queues[0]
    let outcome = Outcome()
    let source = devices[1].queues[1]
    Task { await outcome.record { try await target.forward(from: source.packets) } }
    for number in 0..<100 { try await source.submit(Packet(copying: numbered(number), in: pool)) }
    var seen = 0
    for await packet in target.packets {
      #expect(packet.number == seen)
      seen += 1
      if seen == 100 { break }
    }
    for device in devices + [third] { try await device.close() }
    try await eventually("it has ended") { outcome.finished == 1 }
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test(arguments: [true, false])
  func `a pipeline whose source is silent ends at once when its output ends, and takes no frame with it`(
    _ isClosed: Bool
  ) async throws {
    let (input, output) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold))
    let (from, to) = try await Self.open(input, output)
    let (source, sink) = (from.queues[0], to.queues[0])
    let outcome = Outcome()
    Task { await outcome.record { try await sink.forward(from: source.packets) } }
    #expect(await input.deliver(numbered(0)))
    try await eventually("it goes through") { await output.held() == 1 }
    if isClosed {
      try await to.close()
    } else {
      await output.breakQueue(NetworkDeviceError(.broken, "the test"))
    }
    try await eventually("it ends without another frame") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [isClosed ? .closed : .broken])
    #expect(isClosed || outcome.errors == [NetworkDeviceError(.broken, "the test")])
    // The input is not touched: what comes now is for whoever asks next.
    #expect(await input.deliver(numbered(1)))
    var iterator = source.packets.makeAsyncIterator()
    #expect(await iterator.next()?.number == 1)
    try await from.close()
    try await to.close()
    #expect(from.pool.free == from.pool.configuration.slots)
  }

  @Test func `a pipeline from any sequence ends with its output too`() async throws {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .hold))
    let queue = device.queues[0]
    let (stream, continuation) = AsyncStream.makeStream(of: Packet.self)
    let outcome = Outcome()
    Task { await outcome.record { try await queue.forward(from: stream) } }
    continuation.yield(try Packet(copying: numbered(1), in: device.pool))
    try await eventually("the first is out") { queue.statistics.packetsSubmitted == 1 }
    try await device.close()
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.closed])
  }

  @Test func `a pipeline whose source breaks ends, and the source says why`() async throws {
    let (input, output) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .release))
    let (from, to) = try await Self.open(input, output)
    let (source, sink) = (from.queues[0], to.queues[0])
    let outcome = Outcome()
    let runner = Outcome()
    Task {
      await runner.record {
        try await from.run { queue in await outcome.record { try await sink.forward(from: queue.packets) } }
      }
    }
    #expect(await input.deliver(numbered(0)))
    try await eventually("it goes through") { sink.statistics.packetsReleased == 1 }
    await input.breakQueue(NetworkDeviceError(.broken, "the test"))
    try await eventually("both end") { outcome.finished == 1 && runner.finished == 1 }
    #expect(outcome.errors.isEmpty)
    #expect(runner.errors == [NetworkDeviceError(.broken, "the test")])
    await #expect(throws: NetworkDeviceError(.broken, "the test")) { try await source.closed() }
    // The other device goes on.
    try await sink.send(Packet(copying: numbered(2), in: to.pool))
    try await to.close()
    #expect(to.pool.free == to.pool.configuration.slots)
  }

  @Test func `a cancelled pipeline between devices ends at once while nothing is in flight`() async throws {
    let (input, output) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .release))
    let (from, to) = try await Self.open(input, output)
    let (source, sink) = (from.queues[0], to.queues[0])
    let outcome = Outcome()
    let task = Task { await outcome.record { try await sink.forward(from: source.packets) } }
    for number in 0..<100 { #expect(await input.deliver(numbered(number))) }
    try await eventually("they go through") { sink.statistics.packetsReleased == 100 }
    task.cancel()
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.cancelled])
    #expect(await input.deliver(numbered(7)))
    var iterator = source.packets.makeAsyncIterator()
    #expect(await iterator.next()?.number == 7)
    try await from.close()
    try await to.close()
    #expect(from.pool.free == from.pool.configuration.slots)
  }

  @Test func `a full output leaves frames where they were received, and takes them up in order`() async throws {
    let (input, output) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold, capacity: 8))
    let (from, to) = try await Self.open(input, output)
    let (source, sink) = (from.queues[0], to.queues[0])
    let outcome = Outcome()
    Task { await outcome.record { try await sink.forward(from: source.packets) } }
    for number in 0..<200 { #expect(await input.deliver(numbered(number))) }
    try await eventually("the output is full") { await output.held() == 8 }
    for number in 0..<200 {
      try await eventually("frame \(number) is next") { await output.held() > 0 }
      #expect(await output.heldBytes(at: 0) == numbered(number))
      await output.release(at: 0)
    }
    try await from.close()
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await to.close()
    #expect(from.pool.free == from.pool.configuration.slots)
  }
}
