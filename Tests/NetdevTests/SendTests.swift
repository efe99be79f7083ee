import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Invariants 2, 3 and 4: a send returns with the release of its buffer, is cancelled only before publication, ends with the
/// reset, and waits its turn for a full ring.
@Suite(.timeLimit(.minutes(3))) struct SendTests {
  @Test func `send waits for the release of its own buffer, needs nothing else, and never returns earlier`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let outcomes = (0..<16).map { _ in Outcome() }
    for (number, outcome) in outcomes.enumerated() {
      let packet = try Packet(copying: numbered(number), in: device.pool)
      Task { await outcome.record { try await queue.send(packet) } }
      try await eventually("frame \(number) is published") { await driver.held() == number + 1 }
    }
    await turn(queue, times: 100_000)
    #expect(outcomes.allSatisfy { $0.finished == 0 })

    await driver.release(at: 7)
    try await eventually("the send of the released buffer returns") { outcomes[7].finished == 1 }
    #expect(outcomes[7].errors.isEmpty)
    await turn(queue, times: 1000)
    #expect(outcomes.map { $0.finished }.reduce(0, +) == 1)

    await driver.releaseAll()
    try await eventually("all return") { outcomes.allSatisfy { $0.finished == 1 } }
    #expect(outcomes.allSatisfy { $0.errors.isEmpty })
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a send cancelled before publication is not sent and says so`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for number in 0..<4 { try await queue.submit(Packet(copying: numbered(number), in: device.pool)) }
    let outcome = Outcome()
    let packet = try Packet(copying: numbered(99), in: device.pool)
    let task = Task { await outcome.record { try await queue.send(packet) } }
    try await eventually("the sender waits for room") { queue.statistics.ringFull == 1 }
    #expect(outcome.finished == 0)
    task.cancel()
    try await eventually("the cancelled send returns") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.cancelled])
    await driver.releaseAll()
    await turn(queue, times: 100)
    #expect(await driver.held() == 0)
    #expect(queue.statistics.packetsSubmitted == 4)
    try await device.close()
  }

  @Test func `a send cancelled after publication waits for its release and succeeds`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let outcome = Outcome()
    let packet = try Packet(copying: numbered(1), in: device.pool)
    let task = Task { await outcome.record { try await queue.send(packet) } }
    try await eventually("the frame is published") { await driver.held() == 1 }
    task.cancel()
    await turn(queue, times: 1000)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("the send returns") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await device.close()
  }

  @Test func `a full ring suspends senders, first in, first out`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 4)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let outcomes = (0..<12).map { _ in Outcome() }
    for (number, outcome) in outcomes.enumerated() {
      let packet = try Packet(copying: numbered(number), in: device.pool)
      Task { await outcome.record { try await queue.send(packet) } }
      try await eventually("sender \(number) is published or waits") {
        await driver.held() == min(4, number + 1) && queue.statistics.ringFull == UInt64(max(0, number - 3))
      }
    }
    for number in 0..<12 {
      #expect(await driver.heldBytes(at: 0) == numbered(number))
      await driver.release(at: 0)
      try await eventually("the sender of the released frame goes on") { outcomes[number].finished == 1 }
      try await eventually("and the one that has waited longest is let in") {
        await driver.held() == min(4, 11 - number)
      }
      #expect(outcomes.map { $0.finished } == (0..<12).map { $0 <= number ? 1 : 0 })
    }
    #expect(outcomes.allSatisfy { $0.errors.isEmpty })
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `closing with sends in flight fails each exactly once and brings every buffer back`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let outcomes = (0..<20).map { _ in Outcome() }
    for (number, outcome) in outcomes.enumerated() {
      let packet = try Packet(copying: numbered(number), in: device.pool)
      Task { await outcome.record { try await queue.send(packet) } }
    }
    try await eventually("the ring is full") { await driver.held() == 8 }
    try await eventually("the others wait") { queue.statistics.ringFull == 12 }
    try await device.close()
    try await eventually("all return") { outcomes.allSatisfy { $0.finished == 1 } }
    #expect(outcomes.allSatisfy { $0.errors.map { $0.code } == [.closed] })
    #expect(queue.statistics.packetsFailed == 8)
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
    #expect(driver.resetCount == 1)
    #expect(driver.shutDownCount == 1)
  }

  @Test func `cancelling run resets at once, although children wait for releases`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let outcome = Outcome()
    let task = Task {
      try await device.run { queue in
        let packet = try Packet(copying: numbered(1), in: queue.pool)
        await outcome.record { try await queue.send(packet) }
      }
    }
    try await eventually("the frame is published") { await driver.held() == 1 }
    task.cancel()
    let result = await task.result
    #expect(throws: CancellationError.self) { try result.get() }
    #expect(outcome.finished == 1)
    #expect(outcome.errors.map { $0.code } == [.closed])
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `cancelling run ends each send of many tasks exactly once, published or waiting for the ring`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let inside = (0..<6).map { _ in Outcome() }
    let outside = (0..<14).map { _ in Outcome() }
    func sendOutside(_ numbers: Range<Int>) {
      for number in numbers {
        let outcome = outside[number]
        Task { await outcome.record { try await queue.send(Packet(copying: numbered(number), in: queue.pool)) } }
      }
    }
    sendOutside(0..<4)
    try await eventually("half the ring is theirs") { await driver.held() == 4 }
    let runner = Task {
      try await device.run { queue in
        await withTaskGroup(of: Void.self) { group in
          for (number, outcome) in inside.enumerated() {
            group.addTask {
              await outcome.record { try await queue.send(Packet(copying: numbered(100 + number), in: queue.pool)) }
            }
          }
        }
      }
    }
    try await eventually("the ring is full") { await driver.held() == 8 }
    try await eventually("two of run's children wait") { queue.statistics.ringFull == 2 }
    sendOutside(4..<14)
    try await eventually("the others wait") { queue.statistics.ringFull == 12 }
    // One of those in flight is released before: it succeeds, and one of run's children that wait takes its place.
    await driver.release(at: 3)
    let all = inside + outside
    try await eventually("its send returns") { all.count { $0.finished == 1 } == 1 }
    try await eventually("the ring is full again") { await driver.held() == 8 }
    runner.cancel()
    let result = await runner.result
    #expect(throws: CancellationError.self) { try result.get() }
    // Children of `run`'s body have ended with it.
    #expect(inside.allSatisfy { $0.finished == 1 })
    try await eventually("every send ends") { all.allSatisfy { $0.finished >= 1 } }
    await driver.releaseAll()
    await turn(queue, times: 1000)
    #expect(all.allSatisfy { $0.finished == 1 })
    #expect(outside.count { $0.errors.isEmpty } == 1)
    #expect(outside.count { $0.errors.map { $0.code } == [.closed] } == 13)
    // The one child that still waits is cancelled with `run`, or told of the end: whichever comes first.
    #expect(inside.count { $0.errors.map { $0.code } == [.closed] } >= 5)
    #expect(inside.allSatisfy { $0.errors.count == 1 && [.closed, .cancelled].contains($0.errors[0].code) })
    #expect(queue.statistics.packetsFailed == 8)
    #expect(driver.resetCount == 1)
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  @Test func `a body that throws closes the device for the others and run throws its error`() async throws {
    struct Failure: Error {}
    let driver = ScriptedDriver(mode: .hold, queuePairs: 2)
    let device = try await NetworkDevice.open(driver: driver)
    await #expect(throws: Failure.self) {
      try await device.run { queue in
        if queue.index == 1 { throw Failure() }
        for await _ in queue.packets {}
      }
    }
    #expect(driver.resetCount == 1)
  }

  @Test func `a reset that is never confirmed quarantines, fails the waiters and hangs nobody`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8, reset: .never)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let outcome = Outcome()
    let packet = try Packet(copying: numbered(1), in: device.pool)
    Task { await outcome.record { try await queue.send(packet) } }
    try await eventually("the frame is published") { await driver.held() == 1 }
    await #expect { try await device.close() } throws: { error in
      (error as? NetworkDeviceError)?.code == .resetNotConfirmed
    }
    try await eventually("the send returns") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.resetNotConfirmed])
    // The frame in flight and the eight posted receive buffers.
    let quarantined = queue.statistics.quarantined
    #expect(quarantined == 9)
  }

  /// Invariant 11.
  @Test func `a broken queue ends its packets and run throws the cause`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let cause = NetworkDeviceError(.broken, "test", offered: "a lie")
    let task = Task {
      try await device.run { queue in
        for await _ in queue.packets {}
      }
    }
    try await Task.sleep(for: .milliseconds(5))
    await driver.breakQueue(cause)
    let result = await task.result
    #expect(throws: cause) { try result.get() }
    await #expect(throws: cause) { try await device.queues[0].closed() }
  }

  @Test func `a device that is let go closes by itself`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    var device: NetworkDevice? = try await NetworkDevice.open(driver: driver)
    #expect(device?.queues.count == 1)
    device = nil
    try await eventually("it is shut down") { driver.shutDownCount == 1 }
  }

  @Test func `64 tasks send 10 000 packets each through one queue that receives at the same time`() async throws {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .loopback, capacity: 256))
    // Short, so that the debug build's copying does not take the time.
    try await sendFromManyTasks(repetitions(10_000), bytes: 16, through: device)
  }
}
