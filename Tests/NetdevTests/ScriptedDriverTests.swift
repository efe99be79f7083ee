import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// What a test sees of what was sent.
@Suite(.timeLimit(.minutes(1))) struct ScriptedDriverTests {
  @Test func `each frame that is sent is seen once, in order, before and after it was asked for`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    try await queue.send(Packet(copying: numbered(1), in: queue.pool))
    #expect(try await driver.nextSent() == numbered(1))
    let asked = Task { try await driver.nextSent() }
    try await queue.send(Packet(copying: numbered(2), in: queue.pool))
    #expect(try await asked.value == numbered(2))
    let seen = Tally(1)
    let sequence = Task {
      var frames: [[UInt8]] = []
      for await frame in driver.sent() {
        frames.append(frame)
        seen.add(0)
      }
      return frames
    }
    for number in 3..<10 { try await queue.send(Packet(copying: numbered(number), in: queue.pool)) }
    // Frames that nobody has asked for end with the device.
    try await eventually("all are seen") { seen.total == 7 }
    try await device.close()
    #expect(await sequence.value == (3..<10).map { numbered($0) })
    let error = await #expect(throws: NetworkDeviceError.self) { try await driver.nextSent() }
    #expect(error?.code == .closed)
  }

  @Test func `what does not come in time is an error, and who has stopped waiting takes nothing`() async throws {
    try await Simulation(seed: 1).run { _ in
      let driver = ScriptedDriver(mode: .release)
      let device = try await NetworkDevice.open(driver: driver)
      let queue = device.queues[0]
      let error = await #expect(throws: NetworkDeviceError.self) { try await driver.nextSent(within: .seconds(5)) }
      #expect(error?.code == .timedOut)
      let cancelled = Task { try await driver.nextSent() }
      try await queue.sleep(for: .seconds(1))
      cancelled.cancel()
      let other = await #expect(throws: NetworkDeviceError.self) { try await cancelled.value }
      #expect(other?.code == .cancelled)
      try await queue.send(Packet(copying: numbered(1), in: queue.pool))
      let frame = try await driver.nextSent()
      #expect(frame == numbered(1))
      let waiting = Task { try await driver.nextSent() }
      try await queue.sleep(for: .seconds(1))
      try await device.close()
      let last = await #expect(throws: NetworkDeviceError.self) { try await waiting.value }
      #expect(last?.code == .closed)
    }
  }

  @Test func `a number of a frame or of a queue that there is not does nothing, or says so`() async throws {
    let driver = ScriptedDriver(mode: .hold, queuePairs: 2)
    var error = await #expect(throws: NetworkDeviceError.self) { try await driver.nextSent() }
    #expect(error?.offered == "the device has not been opened")
    let device = try await NetworkDevice.open(driver: driver)
    error = await #expect(throws: NetworkDeviceError.self) { try await driver.nextSent(queue: 7) }
    #expect(error?.code == .invalidConfiguration && error?.offered == "queue 7")
    error = await #expect(throws: NetworkDeviceError.self) { try await driver.nextSent(queue: -1) }
    #expect(error?.code == .invalidConfiguration)
    try await device.queues[0].submit(Packet(copying: numbered(1), in: device.pool))
    try await eventually("it is with the device") { await driver.held() == 1 }
    await driver.release(at: -1)
    await driver.release(at: 1)
    #expect(await driver.heldBytes(at: -1) == [])
    #expect(await driver.held(queue: 7) == 0)
    #expect(await driver.held() == 1)
    await driver.releaseFirst(-1)
    #expect(await driver.held() == 1)
    try await device.close()
    error = await #expect(throws: NetworkDeviceError.self) { try await driver.nextSent() }
    #expect(error?.code == .closed && error?.offered == "the device is closed")
  }

  @Test func `a device without a queue pair is refused`() async throws {
    for pairs in [0, -1] {
      let driver = ScriptedDriver(mode: .hold, queuePairs: pairs)
      let error = await #expect(throws: NetworkDeviceError.self) {
        try await NetworkDevice.open(driver: driver).close()
      }
      #expect(error?.code == .invalidConfiguration)
    }
  }
}
