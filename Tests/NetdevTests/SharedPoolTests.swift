import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import TestSupport
import Testing
import VirtioNet

/// One pool that several devices receive into and send from: what fits them, what each can count on, what goes wrong.
@Suite(.timeLimit(.minutes(3))) struct SharedPoolTests {
  /// Receives and drops what a queue gets, until the task is cancelled.
  private static func receive(from queue: NetworkQueue) async {
    for await _ in queue.packets {}
  }

  @Test(arguments: [(reserve: 32, isServed: true), (reserve: 0, isServed: false)])
  func `an output that releases nothing leaves the input its buffers, thanks to the reserve`(
    _ case: (reserve: Int, isServed: Bool)
  ) async throws {
    let (input, output) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold))
    let pool = try PacketPool(.init(slots: 64, reserve: `case`.reserve, hugePages: false))
    let (from, to) = try await ForwardTests.open(input, output, pool: pool)
    let (source, sink) = (from.queues[0], to.queues[0])
    let outcome = Outcome()
    Task { await outcome.record { try await sink.forward(from: source.packets) } }
    // Far more than there are buffers; a frame without a buffer is the device's to drop.
    for number in 0..<1000 {
      if await !input.deliver(numbered(number)) { await turn(source, times: 3) }
    }
    let held = await output.held()
    #expect(held > 0)
    // Another consumer of the input, which lets its packets go: frames come in, as many as like.
    let reader = Task.detached { await Self.receive(from: source) }
    var delivered = 0
    var refusals = 0
    while delivered < 5000, refusals < 2000 {
      if await input.deliver(numbered(delivered)) {
        delivered += 1
      } else {
        refusals += 1
        await turn(source, times: 2)
      }
    }
    let heldNow = await output.held()
    #expect((delivered == 5000) == `case`.isServed, "\(delivered) delivered, \(heldNow) held")
    #expect(heldNow <= pool.configuration.slots - `case`.reserve)
    reader.cancel()
    await reader.value
    try await from.close()
    try await eventually("the pipeline ends") {
      // What it had fetched and the ring had no room for is published when there is some.
      await output.releaseAll()
      return outcome.finished == 1
    }
    try await to.close()
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test func `frames held back for the pool's sake go out once there are buffers again, bursts too`() async throws {
    let (input, output) = (ScriptedDriver(mode: .hold, capacity: 128), ScriptedDriver(mode: .hold, capacity: 128))
    let pool = try PacketPool(.init(slots: 128, reserve: 96, hugePages: false))
    let (from, to) = try await ForwardTests.open(input, output, pool: pool)
    let (source, sink) = (from.queues[0], to.queues[0])
    let outcome = Outcome()
    Task {
      await outcome.record {
        try await sink.run { sink in
          while let burst = await source.receiveBurst() { try await sink.submit(burst) }
        }
      }
    }
    var delivered = 0
    var seen = 0
    while seen < 2000 {
      while delivered < 2000, await input.deliver(numbered(delivered)) { delivered += 1 }
      try await eventually("frame \(seen) is out") { await output.held() > 0 }
      #expect(await output.heldBytes(at: 0) == numbered(seen))
      await output.release(at: 0)
      seen += 1
    }
    try await from.close()
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await to.close()
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test(arguments: [(reserve: 32, least: 16), (reserve: 0, least: 0)])
  func `a receive queue has its share of the reserve although another was there first`(
    _ case: (reserve: Int, least: Int)
  ) async throws {
    let (first, second) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold))
    let pool = try PacketPool(.init(slots: 64, reserve: `case`.reserve, hugePages: false))
    let (from, to) = try await ForwardTests.open(first, second, pool: pool)
    await turn(to.queues[0], times: 10)
    var taken = 0
    while await second.deliver(numbered(taken)) { taken += 1 }
    #expect(taken == `case`.least)
    try await from.close()
    try await to.close()
    #expect(pool.free == 64)
  }

  @Test func `the pool that fits several devices has the largest of their needs and the sum of their rings`() {
    let information = { (queues: Int, size: Int, headroom: Int, buffer: Int) in
      NetworkDeviceInformation(
        name: "one", hardwareAddress: nil, mtu: 1500, queuePairs: queues, queueSize: size, headroom: headroom,
        receiveBufferSize: buffer)
    }
    let fitting = PacketPool.Configuration.fitting([
      information(2, 256, 12, 1514), information(1, 1024, 100, 9014), information(1, 16, 20, 60),
    ])
    #expect(fitting.headroom >= 200 && fitting.headroom % 4 == 0)
    #expect(fitting.slotSize - fitting.headroom >= 9014 && fitting.slotSize % 64 == 0)
    #expect(fitting.slots >= 2 * (2 * 256 + 1024 + 16))
    #expect(fitting.reserve >= 2 * 256 + 1024 + 16)
  }

  @Test func `when one of several devices cannot be opened, none is left open`() async throws {
    let (good, bad) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold, queuePairs: 1))
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 2
    let two = ScriptedDriver(mode: .hold, queuePairs: 2)
    await #expect(throws: NetworkDeviceError.self) {
      _ = try await NetworkDevice.open(drivers: [two, bad], configuration: configuration)
    }
    #expect(two.shutDownCount == 1 && bad.shutDownCount == 1)
    // A pool that is too small for the second is as bad.
    configuration.queuePairs = 1
    configuration.pool = try PacketPool(.init(slots: 64, hugePages: false))
    let large = ScriptedDriver(mode: .hold, mtu: 9000)
    await #expect(throws: NetworkDeviceError.self) {
      _ = try await NetworkDevice.open(drivers: [good, large], configuration: configuration)
    }
    #expect(good.shutDownCount == 1 && large.shutDownCount == 1)
    // Whoever is waited for is not waited for any more: this one would wait for a minute.
    let path = "/tmp/netdev-\(UInt32.random(in: 0 ... .max)).sock"
    await #expect(throws: NetworkDeviceError.self) {
      _ = try await NetworkDevice.open(["vhost-user:\(path)?server=1&connect_timeout=3000", "loopback:?queue_size=100"])
    }
  }

  /// Where a burst is submitted.
  enum Target: CaseIterable { case sameLoop, otherLoop, otherPool }

  @Test(arguments: Target.allCases, [false, true])
  func `a burst of one device goes out through another, and its block goes back`(
    _ target: Target, _ isAwaited: Bool
  ) async throws {
    let (input, output) = (ScriptedDriver(mode: .hold), ScriptedDriver(mode: isAwaited ? .release : .hold))
    let from: NetworkDevice
    let to: NetworkDevice
    switch target {
    case .sameLoop:
      (from, to) = try await ForwardTests.open(input, output)
    case .otherLoop, .otherPool:
      from = try await NetworkDevice.open(driver: input)
      var configuration = NetworkDevice.Configuration()
      configuration.pool = target == .otherLoop ? from.pool : nil
      to = try await NetworkDevice.open(driver: output, configuration: configuration)
    }
    let (source, sink) = (from.queues[0], to.queues[0])
    for number in 0..<200 { #expect(await input.deliver(numbered(number))) }
    try await source.run { source in
      var seen = 0
      while seen < 200, let burst = await source.receiveBurst() {
        seen += burst.count
        if isAwaited { try await sink.send(burst) } else { try await sink.submit(burst) }
      }
    }
    if isAwaited {
      #expect(sink.statistics.packetsReleased == 200)
    } else {
      try await eventually("all are out") { await output.held() == 200 }
      for number in 0..<200 { #expect(await output.heldBytes(at: number) == numbered(number)) }
      await output.releaseAll()
    }
    #expect(sink.statistics.copiedToSend == (target == .otherPool ? 200 : 0))
    try await from.close()
    try await to.close()
    for pool in [from.pool, to.pool] {
      try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    }
    // A queue lives as long as one of its blocks is away.
    weak var queue: NetworkQueue?
    do {
      let driver = ScriptedDriver(mode: .hold)
      let again = try await NetworkDevice.open(driver: driver)
      queue = again.queues[0]
      #expect(await driver.deliver(numbered(1)))
      var configuration = NetworkDevice.Configuration()
      configuration.pool = again.pool
      let target = try await NetworkDevice.open(driver: ScriptedDriver(mode: .hold), configuration: configuration)
      if let burst = await again.queues[0].receiveBurst() { try await target.queues[0].submit(burst) }
      try await again.close()
      try await target.close()
    }
    try await eventually("the queue is gone") { queue == nil }
  }

  @Test func `outside the loop, a packet for which the pool has no buffer is refused in words, not lost`() async throws
  {
    let driver = ScriptedDriver(mode: .hold)
    let pool = try PacketPool(.init(slots: 64, reserve: 64, hugePages: false))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    let foreign = try PacketPool(.init(slots: 16, hugePages: false))
    do {
      try await queue.submit(Packet(copying: numbered(1), in: foreign))
      Issue.record("it was taken")
    } catch {
      #expect(error.code == .outOfMemory)
    }
    #expect(await driver.held() == 0)
    #expect(queue.statistics.packetsFailed == 0)
    try await device.close()
    #expect(foreign.free == 16)
  }

  @Test func `outside the loop, packets of another pool are copied once and counted`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let foreign = try PacketPool(.init(slots: 16, hugePages: false))
    for number in 0..<3000 { try await queue.submit(Packet(copying: numbered(number), in: foreign)) }
    try await eventually("all are sent") { queue.statistics.packetsReleased == 3000 }
    // Three thousand packets in a pool of sixteen: most were made on the heap, which is as foreign.
    #expect(queue.statistics.copiedToSend == 3000)
    try await device.close()
    #expect(foreign.free == 16 && device.pool.free == device.pool.configuration.slots)
  }
}
