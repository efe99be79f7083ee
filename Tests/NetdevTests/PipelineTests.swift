import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Packets made as they are asked for, with the numbers from zero up.
struct Made: PacketSequence {
  let count: Int
  let pool: PacketPool

  func makeAsyncIterator() -> Iterator { Iterator(count: count, pool: pool) }

  struct Iterator: PacketIterator {
    let count: Int
    let pool: PacketPool
    var next = 0

    nonisolated(nonsending) mutating func nextPacket() async -> Packet? {
      guard next < count, !Task.isCancelled else { return nil }
      defer { next += 1 }
      return try? Packet(copying: numbered(next), in: pool)
    }
  }
}

@Suite(.timeLimit(.minutes(5))) struct PipelineTests {
  @Test func `a million frames to a device that serves a thousand a second: bounded memory, none dropped, in order`()
    async throws
  {
    let total = repetitions(1_000_000)
    let ring = 64
    let bound = 48
    let pool = try PacketPool(.init(slots: 512))
    let driver = PacedDriver(capacity: ring, total: total, pool: pool)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    try await queue.forward(from: Made(count: total, pool: pool), inFlight: bound)
    #expect(queue.statistics.packetsReleased == UInt64(total))
    #expect(queue.statistics.packetsFailed == 0)
    try await device.close()
    let record = driver.record
    #expect(record.served == total)
    #expect(record.wrong.isEmpty)
    // It never had to wait for a frame.
    #expect(record.time == .milliseconds(total))
    // The source is faster: the device always has as many as it may, and nothing lies anywhere else but in the pool.
    #expect(record.mostInFlight == bound)
    #expect(record.leastFree >= pool.configuration.slots - ring - bound)
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `cancelling a pipeline waits for what is in flight and leaves the pool whole`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 32)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let pool = device.pool
    let outcome = Outcome()
    let task = Task { await outcome.record { try await queue.forward(from: Made(count: .max, pool: pool)) } }
    try await eventually("the ring is full") { await driver.held() == 32 }
    task.cancel()
    await turn(queue, times: 100)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("it returns") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.cancelled])
    try await device.close()
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `map, compactMap and filter change packets in place, on the loop, and drop what they leave out`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let pool = device.pool
    for number in 0..<40 { #expect(await driver.deliver(numbered(number))) }
    try await device.run { queue in
      let even = queue.packets
        .filter { $0.number.isMultiple(of: 2) }
        .compactMap { (packet: consuming Packet) -> Packet? in
          #expect(queue.loop.isOnLoop)
          packet.withMutableBytes { $0.storeBytes(of: 0xee, toByteOffset: 20, as: UInt8.self) }
          return packet
        }
      var seen: [Int] = []
      for await packet in even {
        #expect(packet.array[20] == 0xee)
        seen.append(packet.number)
        if seen.count == 15 { break }
      }
      var rest: [Int] = []
      for await number in queue.packets.map({ (packet: consuming Packet) in packet.number }) {
        rest.append(number)
        if rest.count == 11 { break }
      }
      #expect(seen == (0..<15).map { $0 * 2 })
      #expect(rest == Array(29..<40))
    }
    #expect(pool.copies == 0)
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `a pipeline from one queue's packets to another takes no more than it may, and ends with its source`()
    async throws
  {
    let source = ScriptedDriver(mode: .hold)
    let sink = ScriptedDriver(mode: .hold)
    let pool = try PacketPool(.init(slots: 4096))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let from = try await NetworkDevice.open(driver: source, configuration: configuration)
    let to = try await NetworkDevice.open(driver: sink, configuration: configuration)
    let input = from.queues[0]
    let output = to.queues[0]
    for number in 0..<100 { #expect(await source.deliver(numbered(number))) }
    let outcome = Outcome()
    Task { await outcome.record { try await output.forward(from: input.packets, inFlight: 10) } }
    for number in 0..<100 {
      try await eventually("frame \(number) is published") { await sink.held() > 0 }
      #expect(await sink.held() <= 10)
      #expect(await sink.heldBytes(at: 0) == numbered(number))
      await sink.release(at: 0)
    }
    try await from.close()
    try await eventually("the pipeline ends with its source") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    #expect(pool.copies == 0)
    try await to.close()
    #expect(pool.free == pool.configuration.slots)
  }
}
