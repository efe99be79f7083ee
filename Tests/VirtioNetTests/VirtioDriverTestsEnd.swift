import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import Synchronization
import TestSupport
import Testing
import Virtio

/// Invariant 3 through real rings. How a virtio device ends: by a reset that it asks for, that it never confirms, or in the
/// middle of everything (VIRTIO 1.4 §2.1.2, §3.3.1).
@Suite(.quietLoops, .timeLimit(.minutes(2))) struct VirtioDriverTestsEnd {
  @Test
  func `Driver rule 26: NEEDS_RESET amid traffic ends every send once, brings every buffer home, and reopens`()
    async throws
  {
    try await expectBroken(
      by: Lie("") { pair in
        pair.release(at: 3)
        pair.release(at: 5)
        pair.needReset()
        pair.needReset()
      })
  }

  @Test func `Driver rule 3: no doorbell after the reset has begun, however busy the queue is`() async throws {
    for _ in 0..<20 {
      let lying = try await Lying()
      let queue = lying.queue
      await lying.side.perform { pair in pair.whenKicked = { $0.loopBack() } }
      let senders = (0..<8).map { _ in
        Task { while (try? await queue.send(Packet(copying: numbered(1), in: lying.pool))) != nil {} }
      }
      let consumer = Task { for await _ in queue.packets {} }
      try await eventually("traffic flows") { queue.statistics.packetsReleased > 50 }
      try await lying.device.close()
      for sender in senders { await sender.value }
      await consumer.value
      #expect(!lying.side.events.contains(.misplacedKick(pair: 0)))
      try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
    }
  }

  @Test func `Driver rules 22, 27: what the device writes after a reset that it confirmed changes nothing`()
    async throws
  {
    let lying = try await Lying()
    let queue = lying.queue
    let sends = (0..<8).map { _ in Outcome() }
    for (number, send) in sends.enumerated() {
      let packet = try Packet(copying: numbered(number), in: lying.pool)
      Task { await send.record { try await queue.send(packet) } }
    }
    try await eventually("all are published") { await lying.held() == 8 }
    let rings = try #require(await lying.side.rings())
    try await lying.closeAndCheck()
    #expect(sends.allSatisfy { $0.finished == 1 && $0.errors.map { $0.code } == [.closed] })
    await lying.side.perform { pair in
      pair.releaseAll(interrupt: .always)
      pair.needReset()
      for _ in 0..<100 { pair.interrupt() }
    }
    for value in 0..<UInt16(64) {
      rings.transmit.setUsed(at: value, id: .max, length: .max)
      rings.receive.setUsed(at: value, id: .max, length: .max)
    }
    rings.transmit.usedIndex = 0x8000
    rings.receive.usedIndex = 0x8000
    await turn(queue, times: 10)
    #expect(sends.allSatisfy { $0.finished == 1 })
    #expect(lying.pool.free == lying.pool.configuration.slots)
    try await lying.checkReopening()
  }

  @Test func `Driver rule 27: a reset that is never confirmed keeps what the device may write to out of use for good`()
    async throws
  {
    let lying = try await Lying(resetTimeout: .milliseconds(30))
    let queue = lying.queue
    let sends = (0..<20).map { _ in Outcome() }
    for (number, send) in sends.enumerated() {
      let packet = try Packet(copying: numbered(number), in: lying.pool)
      Task { await send.record { try await queue.send(packet) } }
    }
    try await eventually("the ring is full") { await lying.held() == 16 }
    try await eventually("the others wait") { queue.statistics.ringFull == 4 }
    lying.side.resetBehaviour = .never
    await #expect { try await lying.device.close() } throws: { ($0 as? NetworkDeviceError)?.code == .resetNotConfirmed }
    try await eventually("every send ends") { sends.allSatisfy { $0.finished == 1 } }
    #expect(sends.filter { $0.errors.map { $0.code } == [.resetNotConfirmed] }.count == 16)
    #expect(sends.filter { $0.errors.map { $0.code } == [.closed] }.count == 4)
    #expect(queue.statistics.quarantined == 32)
    try await eventually("the rest is back") { lying.pool.free == lying.pool.configuration.slots - 32 }
    // The zombie writes into all it has; nobody else's bytes change, and the pool serves the next device.
    let others = try (0..<100).map { try Packet(copying: numbered($0), in: lying.pool) }
    await lying.side.perform { pair in
      for queue in [pair.receive, pair.transmit] {
        for head in queue.held {
          for buffer in queue.ring.chain(head) {
            queue.ring.write([UInt8](repeating: 0xee, count: Int(buffer.length)), at: buffer.address)
          }
        }
      }
      pair.releaseAll(interrupt: .always)
    }
    for (number, packet) in others.enumerated() { #expect(packet.array == numbered(number)) }
    withExtendedLifetime(consume others) {}
    try await lying.checkReopening()
  }

  @Test(arguments: ["loopback:?queue_size=16", "loopback:?queue_size=16&placement=own"])
  func `Driver rule 27: cancelling under load ends every send once and brings every buffer home`(url: String)
    async throws
  {
    for _ in 0..<15 {
      let pool = try PacketPool(.init(slots: 512, hugePages: false))
      var settings = NetworkDevice.Configuration()
      settings.pool = pool
      let device = try await NetworkDevice.open(url, configuration: settings)
      let queue = device.queues[0]
      let received = Atomic<Int>(0)
      let runner = Task {
        try await device.run { queue in
          for await packet in queue.packets {
            received.add(1, ordering: .relaxed)
            try await queue.submit(packet)
          }
        }
      }
      let outcomes = (0..<32).map { _ in Outcome() }
      let senders = outcomes.map { outcome in
        Task {
          while outcome.errors.isEmpty {
            await outcome.record { try await queue.send(Packet(copying: numbered(1), in: pool)) }
          }
        }
      }
      try await eventually("traffic flows") { received.load(ordering: .relaxed) > 100 }
      for sender in senders.prefix(8) { sender.cancel() }
      runner.cancel()
      _ = await runner.result
      for sender in senders { await sender.value }
      for outcome in outcomes { #expect(outcome.errors.allSatisfy { [.closed, .cancelled].contains($0.code) }) }
      try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    }
  }

  @Test func `Driver rule 27: packets that are still held outlive the device`() async throws {
    var device: NetworkDevice? = try await NetworkDevice.open("loopback:?queue_size=64&lossless=1")
    let queue = try #require(device?.queues[0])
    var held: [Packet] = []
    let pool = queue.pool
    for number in 0..<50 { try await queue.submit(Packet(copying: numbered(number), in: pool)) }
    for await packet in queue.packets {
      held.append(packet)
      if held.count == 50 { break }
    }
    try await device?.close()
    device = nil
    for (number, packet) in held.enumerated() { #expect(packet.array == numbered(number)) }
    #expect(pool.free == pool.configuration.slots - 50)
    held = []
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test func `one pool serves one device after another, and none keeps a buffer`() async throws {
    let pool = try PacketPool(.init(slots: 512, hugePages: false))
    for round in 0..<30 {
      let lying = try await Lying(pool: pool)
      let queue = lying.queue
      await lying.side.perform { pair in pair.whenKicked = { $0.loopBack() } }
      for number in 0..<10 { try await queue.send(Packet(copying: numbered(number), in: pool)) }
      if round & 1 == 0 {
        await lying.side.perform { pair in
          pair.receive.show([(.max, 0)])
          pair.interrupt()
        }
        Task { for await _ in queue.packets {} }
      }
      try await lying.closeAndCheck()
    }
  }
}
