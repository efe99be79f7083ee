import Glibc
import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing
import VirtioNet

/// Bounds and wake-ups that hold for as long as they are needed, and readiness that nobody can use and therefore nobody looks
/// for: neither deaf nor spinning.
@Suite(.timeLimit(.minutes(3))) struct WakeUpTests {
  /// Turns of a loop while nothing happens for a while; a loop that spins makes tens of thousands.
  private static func turns(of queue: NetworkQueue) async throws -> UInt64 {
    try await Task.sleep(for: .milliseconds(50))
    let before = queue.loop.statistics.turns
    try await Task.sleep(for: .milliseconds(200))
    return queue.loop.statistics.turns - before
  }

  @Test(arguments: [LyingPair.Interrupt.whenWanted, .never])
  func `releases that no interrupt tells of are seen however late they are, again and again`(
    _ interrupt: LyingPair.Interrupt
  ) async throws {
    let lying = try await Lying(queueSize: 64)
    let queue = lying.queue
    let outcome = Outcome()
    let pool = lying.pool
    Task {
      await outcome.record {
        try await queue.forward(
          from: AsyncStream { continuation in
            for number in 0..<40 { continuation.yield(try? Packet(copying: numbered(number), in: pool)) }
          }.compactMap { $0 }, inFlight: 40)
      }
    }
    try await eventually("all are with the device") { await lying.held() == 40 }
    // While 32 are in flight the interrupt waits for most of them; a device that owes one by the rules gives it below that.
    var seen: UInt64 = 0
    for count in interrupt == .never ? [1, 2, 3, 2, 20] : [1, 5, 20, 1, 13] {
      // Long after the first vain look.
      try await Task.sleep(for: .milliseconds(20))
      await lying.side.perform { pair in
        for _ in 0..<count { _ = pair.release(interrupt: interrupt) }
      }
      seen += UInt64(count)
      try await eventually("they are seen") { queue.statistics.packetsReleased == seen }
    }
    // That costs little: the bound is renewed at longer and longer intervals.
    try await Task.sleep(for: .milliseconds(500))
    #expect(try await Self.turns(of: queue) < 50)
    try await lying.closeAndCheck()
    try await eventually("it ends") { outcome.finished == 1 }
  }

  @Test(arguments: [0, 1, 2])
  func `a queue whose ring is empty gets buffers when there are some, however small the reserve is`(
    reserve: Int
  ) async throws {
    let (first, second) = (ScriptedDriver(mode: .hold, capacity: 64), ScriptedDriver(mode: .hold, capacity: 64))
    let pool = try PacketPool(.init(slots: 64, reserve: reserve, hugePages: false))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let before = try await NetworkDevice.open(driver: first, configuration: configuration)
    let device = try await NetworkDevice.open(driver: second, configuration: configuration)
    await turn(device.queues[0], times: 3)
    // Whatever it got of the reserve is used up, and kept.
    var kept: [Packet] = []
    while await second.deliver(numbered(kept.count)) {
      for await packet in device.queues[0].packets {
        kept.append(packet)
        break
      }
    }
    try await before.close()
    try await eventually("it receives again") { await second.deliver(numbered(1)) }
    kept = []
    try await device.close()
    try await eventually("every buffer is back") { pool.free == 64 }
  }

  @Test(arguments: [false, true])
  func `frames behind a pollable descriptor that nobody fetches do not make the loop spin`(
    isVirtio: Bool
  ) async throws {
    let (driver, lying) = (ScriptedDriver(mode: .hold), LyingDevice())
    let device = try await NetworkDevice.open(
      driver: isVirtio ? VirtioNetDriver(transport: lying) as any NetworkDriver : driver)
    let queue = device.queues[0]
    let descriptor = try await queue.pollableDescriptor
    for number in 0..<200 {
      if isVirtio {
        await lying.perform { _ = $0.deliver(numbered(number)) }
      } else {
        #expect(await driver.deliver(numbered(number)))
      }
    }
    func isReadable() -> Bool {
      var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      return unsafe Glibc.poll(&poll, 1, 0) == 1
    }
    try await eventually("it says so") { isReadable() }
    #expect(try await Self.turns(of: queue) < 50)
    // Whoever fetches all is told of the next.
    var word: UInt64 = 0
    _ = unsafe read(descriptor, &word, 8)
    let fetched = await queue.run { queue in
      var count = 0
      while let burst = queue.receiveBurstIfAny() { count += burst.count }
      return count
    }
    #expect(fetched == 200)
    try await Task.sleep(for: .milliseconds(20))
    _ = unsafe read(descriptor, &word, 8)
    if isVirtio {
      await lying.perform { _ = $0.deliver(numbered(200)) }
    } else {
      #expect(await driver.deliver(numbered(200)))
    }
    try await eventually("it says so again") { isReadable() }
    // Fetched one by one, without coming back for more than there are: the next frame is told of all the same.
    for number in 201...203 {
      let fetched = await queue.run { queue in
        var packets = queue.packets.makeAsyncIterator()
        return await packets.next()?.number
      }
      #expect(fetched == number - 1)
      try await Task.sleep(for: .milliseconds(10))
      _ = unsafe read(descriptor, &word, 8)
      if isVirtio {
        await lying.perform { _ = $0.deliver(numbered(number)) }
      } else {
        await driver.deliver(numbered(number))
      }
      try await eventually("frame \(number) is told of") { isReadable() }
    }
    try await device.close()
  }

  @Test func `a device that is lost a second time while received frames wait does not make the loop spin`() async throws
  {
    var configuration = LyingDevice.Configuration()
    configuration.recovery = VirtioRecovery()
    configuration.recovery?.firstDelay = .milliseconds(1)
    let lying = try await Lying(configuration, queueSize: 64)
    let queue = lying.queue
    for number in 0..<40 { await lying.side.perform { _ = $0.deliver(numbered(number), interrupt: .never) } }
    for round in 0..<2 {
      lying.side.isThere = false
      lying.side.lose(isGone: { true })
      try await eventually("it is down") { !lying.device.isLinkUp }
      #expect(try await Self.turns(of: queue) < 50, "loss \(round)")
      guard round == 0 else { break }
      lying.side.isThere = true
      try await eventually("it is back") { lying.device.isLinkUp && queue.statistics.driver.recoveries == 1 }
      #expect(try await Self.turns(of: queue) < 50)
    }
    // None is lost.
    var seen = 0
    for await packet in queue.packets {
      #expect(packet.number == seen)
      seen += 1
      if seen == 40 { break }
    }
    try await lying.closeAndCheck()
  }
}
