import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Time on a queue's loop, by the clock of a simulated world: nothing here waits for a real one.
@Suite(.timeLimit(.minutes(1))) struct QueueTimeTests {
  /// A device in a world of its own.
  private static func inWorld<Result: Sendable>(
    seed: UInt64 = 1, _ body: @escaping @Sendable (NetworkDevice, ScriptedDriver) async throws -> Result
  ) async throws -> Result {
    try await Simulation(seed: seed).run { _ in
      let driver = ScriptedDriver(mode: .hold)
      let device = try await NetworkDevice.open(driver: driver)
      let result = try await body(device, driver)
      try await device.close()
      return result
    }
  }

  private static func code(_ body: () async throws -> Void) async -> NetworkDeviceError.Code? {
    do { try await body() } catch { return (error as? NetworkDeviceError)?.code }
    return nil
  }

  @Test func `a sleep takes its time, by the loop's clock`() async throws {
    try await Self.inWorld { device, _ in
      try await device.queues[0].run { queue in
        let start = queue.clock.now
        try await queue.sleep(for: .seconds(3600))
        #expect(start.duration(to: queue.clock.now) >= .seconds(3600))
        #expect(start.duration(to: queue.clock.now) < .seconds(3601))
        try await queue.sleep(for: .zero)
        try await queue.clock.sleep(for: .seconds(1))
        #expect(start.duration(to: queue.clock.now) >= .seconds(3601))
      }
    }
  }

  @Test func `cancellation ends a sleep, and so does the queue's end`() async throws {
    try await Self.inWorld { device, _ in
      let queue = device.queues[0]
      let start = queue.clock.now
      let sleeping = Task { await Self.code { try await queue.sleep(for: .seconds(3600)) } }
      try await queue.sleep(for: .seconds(1))
      sleeping.cancel()
      #expect(await sleeping.value == .cancelled)
      let another = Task { await Self.code { try await queue.sleep(for: .seconds(3600)) } }
      try await queue.sleep(for: .seconds(1))
      try await device.close()
      #expect(await another.value == .closed)
      #expect(await Self.code { try await queue.sleep(for: .seconds(1)) } == .closed)
      #expect(start.duration(to: queue.clock.now) < .seconds(10))
    }
  }

  @Test func `what is done again and again keeps to its times, until it is cancelled or the queue ends`() async throws {
    try await Self.inWorld { device, _ in
      let queue = device.queues[0]
      let all = Tally(1)
      let counts = try await queue.run { queue in
        var calls = [0, 0]
        let first = try queue.every(.seconds(1)) { calls[0] += 1 }
        try queue.every(.milliseconds(250)) {
          calls[1] += 1
          all.add(0)
        }
        try await queue.sleep(for: .milliseconds(10_100))
        first.cancel()
        #expect(first.isCancelled)
        try await queue.sleep(for: .seconds(10))
        return calls
      }
      #expect(counts == [10, 80])
      try await device.close()
      let before = all.total
      await queue.loop.sleep(for: .seconds(10))
      #expect(all.total == before)
      let code = await Self.code { try await queue.run { queue in _ = try queue.every(.seconds(1)) {} } }
      #expect(code == .closed)
    }
  }

  @Test func `it is begun and ended from elsewhere too`() async throws {
    try await Self.inWorld { device, _ in
      let queue = device.queues[0]
      let calls = Tally(1)
      let repetition = try await queue.every(.seconds(1)) { calls.add(0) }
      try await queue.sleep(for: .milliseconds(3500))
      repetition.cancel()
      #expect(repetition.isCancelled && calls.total == 3)
      try await queue.sleep(for: .seconds(3))
      #expect(calls.total == 3)
    }
  }

  @Test func `a time that was too short is said in its unit`() async throws {
    try await Self.inWorld { device, _ in
      let error = await #expect(throws: NetworkDeviceError.self) {
        try await device.queues[0].withDeadline(.nanoseconds(1)) { queue in try await queue.sleep(for: .seconds(9)) }
      }
      #expect(error?.offered == "it took longer than 1 ns")
    }
  }

  @Test func `times that were missed are left out`() async throws {
    try await Self.inWorld { device, _ in
      let calls = try await device.queues[0].run { queue in
        var calls = 0
        // Less than a millisecond is one.
        try queue.every(.zero) { calls += 1 }
        try await queue.sleep(for: .milliseconds(100))
        return calls
      }
      #expect((90...100).contains(calls), "\(calls)")
    }
  }

  @Test func `a burst is waited for no longer than asked`() async throws {
    try await Self.inWorld { device, driver in
      let queue = device.queues[0]
      try await queue.run { queue in
        let start = queue.clock.now
        let none = try await frames(queue.receiveBurst(within: .seconds(2)))
        #expect(none == 0)
        #expect(start.duration(to: queue.clock.now) >= .seconds(2))
        let still = try await frames(queue.receiveBurst(within: .zero))
        #expect(still == 0)
      }
      let receiving = Task { try await frames(queue.receiveBurst(within: .seconds(3600))) }
      await driver.deliver(numbered(1))
      #expect(try await receiving.value == 1)
      await driver.deliver(numbered(2))
      let second = try await frames(queue.receiveBurst(within: .zero))
      #expect(second == 1)
      let waiting = Task { await Self.code { _ = try await queue.receiveBurst(within: .seconds(3600)) } }
      try await queue.sleep(for: .seconds(1))
      waiting.cancel()
      #expect(await waiting.value == .cancelled)
      let last = Task { await Self.code { _ = try await queue.receiveBurst(within: .seconds(3600)) } }
      try await queue.sleep(for: .seconds(1))
      try await device.close()
      #expect(await last.value == .closed)
    }
  }

  @Test func `frames go to those who wait, also when some of them stop`() async throws {
    for seed in 1...50 as ClosedRange<UInt64> {
      try await Self.inWorld(seed: seed) { device, driver in
        let queue = device.queues[0]
        let impatient = Task { try await frames(queue.receiveBurst(within: .milliseconds(1))) }
        let patient = Task { try await frames(queue.receiveBurst(within: .seconds(60))) }
        for number in 0..<4 {
          await driver.deliver(numbered(number))
          try await queue.sleep(for: .microseconds(500))
        }
        var taken = try await impatient.value + patient.value
        while let burst = try await queue.receiveBurst(within: .zero) { taken += burst.count }
        #expect(taken == 4)
      }
    }
  }

  @Test func `what takes longer than its deadline is cancelled, and says so`() async throws {
    try await Self.inWorld { device, driver in
      let queue = device.queues[0]
      try await queue.run { queue in
        let start = queue.clock.now
        let code = await Self.code {
          try await queue.withDeadline(.seconds(5)) { try await $0.sleep(for: .seconds(60)) }
        }
        #expect(code == .timedOut)
        #expect(start.duration(to: queue.clock.now) < .seconds(6))
        let value = try await queue.withDeadline(.seconds(5)) { _ in 42 }
        #expect(value == 42)
      }
      let thrown = await Self.code {
        try await queue.withDeadline(.seconds(5)) { _ in throw NetworkDeviceError(.busy, "test") }
      }
      #expect(thrown == .busy)
      let outer = Task { try await queue.withDeadline(.seconds(60)) { queue in for await _ in queue.packets {} } }
      try await queue.sleep(for: .seconds(1))
      outer.cancel()
      try await outer.value
    }
  }
}

/// How many frames there are, if there is a burst.
private func frames(_ burst: consuming PacketBurst?) -> Int {
  if let burst { burst.count } else { 0 }
}
