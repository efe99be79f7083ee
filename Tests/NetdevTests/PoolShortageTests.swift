import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// While a pool is short, whatever comes free in it is seen by those who wait, wherever it comes free; and who waits for what
/// cannot come is told.
@Suite(.timeLimit(.minutes(3))) struct PoolShortageTests {
  /// Two devices on one pool, each with a ring of 16 buffers and programs with four, three of which are kept here. The
  /// fourth is in a packet that the first device has received.
  struct Scene: Sendable {
    let (first, second): (NetworkDevice, NetworkDevice)
    let (input, output): (ScriptedDriver, ScriptedDriver)
    let pool: PacketPool
    let received: Held
    let kept: Held

    /// - Parameter loops: one for both devices, or one each.
    init(loops count: Int) async throws {
      let loops = try (0..<count).map { try LoopExecutor(name: "shortage \($0)") }
      input = ScriptedDriver(mode: .hold, capacity: 16)
      output = ScriptedDriver(mode: .hold, capacity: 16)
      var configuration = NetworkDevice.Configuration()
      pool = try PacketPool(.init(slots: 36, hugePages: false))
      configuration.pool = pool
      configuration.loops = [loops[0]]
      first = try await NetworkDevice.open(driver: input, configuration: configuration)
      configuration.loops = [loops[count - 1]]
      second = try await NetworkDevice.open(driver: output, configuration: configuration)
      (received, kept) = (Held(), Held())
      // One buffer is away from the first ring, which is too few for it to be refilled.
      #expect(await input.deliver(numbered(7)))
      for await packet in first.queues[0].packets {
        received.hold(packet)
        break
      }
      while true {
        let packet = try Packet(copying: numbered(1), in: pool)
        guard packet.isInPool else { break }
        kept.hold(packet)
      }
      #expect(kept.count == 4)
    }

    func close() async throws {
      received.letGo()
      kept.letGo()
      try await first.close()
      try await second.close()
      try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    }
  }

  /// Packets that a program keeps.
  final class Held: Sendable {
    private let packets = Mutex<[Packet]>([])
    func hold(_ packet: Packet) { packets.withLock { $0.append(packet) } }
    func letGo() { packets.withLock { $0 = [] } }
    func take() -> Packet? { packets.withLock { $0.popLast() } }
    var count: Int { packets.withLock { $0.count } }
  }

  /// A packet that lies elsewhere.
  private static func foreign(_ count: Int = 64) throws -> Packet {
    try Packet(copying: numbered(99, count: count), in: PacketPool(.init(slots: 1, hugePages: false)))
  }

  /// Ways in which a buffer comes free, of one that the first queue has received.
  enum Way: CaseIterable { case droppedThere, droppedElsewhere, releasedPlain, releasedWhileHeld }

  @Test(arguments: Way.allCases, [1, 2])
  func `a buffer that comes free while somebody waits is his, whoever's list it would have gone to`(
    _ way: Way, loops: Int
  ) async throws {
    let scene = try await Scene(loops: loops)
    let (from, to) = (scene.first.queues[0], scene.second.queues[0])
    // The frame is with a device of the loop that received it.
    let carrier = way == .releasedWhileHeld || way == .releasedPlain ? from : nil
    if let carrier {
      try await carrier.run { queue in
        guard let packet = scene.received.take() else { return }
        if way == .releasedWhileHeld { scene.received.hold(packet) }
        try await queue.submit(packet)
      }
      try await eventually("it is with the device") { await scene.input.held() == 1 }
    }
    let outcome = Outcome()
    Task { await outcome.record { try await to.submit(Self.foreign()) } }
    try await eventually("it waits") { to.statistics.poolEmpty == 1 }
    await turn(to, times: 3)
    #expect(outcome.finished == 0)
    switch way {
    case .droppedElsewhere: scene.received.letGo()
    case .droppedThere: await from.run { _ in scene.received.letGo() }
    case .releasedPlain: await scene.input.releaseAll()
    case .releasedWhileHeld:
      await scene.input.releaseAll()
      await from.run { _ in scene.received.letGo() }
    }
    try await eventually("it is sent") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    await scene.output.releaseAll()
    try await scene.close()
  }

  @Test func `what a sleeping queue has kept is called for`() async throws {
    let scene = try await Scene(loops: 2)
    let (from, to) = (scene.first.queues[0], scene.second.queues[0])
    // It comes free before anybody waits, and its loop sleeps with it.
    await from.run { _ in scene.received.letGo() }
    await turn(from, times: 2)
    #expect(scene.pool.available == 0 && scene.pool.free == 1)
    try await eventually("nothing more is done there") {
      let sleeps = from.loop.statistics.sleeps
      try? await Task.sleep(for: .milliseconds(2))
      return from.loop.statistics.sleeps == sleeps
    }
    let outcome = Outcome()
    await outcome.record { try await to.submit(Self.foreign()) }
    #expect(outcome.errors.isEmpty)
    await scene.output.releaseAll()
    try await scene.close()
  }

  @Test func `a loop that sleeps keeps its share and no more, also when nothing but a packet was let go there`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 64, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    let held = Held()
    for _ in 0..<3 {
      for number in 0..<12 { #expect(await driver.deliver(numbered(number))) }
      await queue.run { queue in
        var left = 12
        while left > 0, var burst = queue.receiveBurstIfAny() {
          left -= burst.count
          while let packet = burst.popLast() { held.hold(packet) }
        }
      }
      await turn(queue, times: 3)
    }
    #expect(held.count == 36)
    await queue.run { _ in held.letGo() }
    await turn(queue, times: 3)
    // A sixteenth of 64.
    try await eventually("the others are anybody's") { device.pool.available >= 64 - 16 - 4 }
    try await device.close()
  }

  @Test func `who waits to send comes before what a receive ring can do without`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 20, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    let held = Held()
    // Of sixteen posted eight are received and kept; the ring takes the four that there still are.
    for number in 0..<8 { #expect(await driver.deliver(numbered(number))) }
    await queue.run { queue in
      while var burst = queue.receiveBurstIfAny() { while let packet = burst.popLast() { held.hold(packet) } }
    }
    try await eventually("the pool is empty") { device.pool.free == 0 }
    let outcome = Outcome()
    Task { await outcome.record { try await queue.submit(Self.foreign()) } }
    try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
    await queue.run { _ in _ = held.take() }
    try await eventually("it is sent") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    held.letGo()
    await driver.releaseAll()
    try await device.close()
  }

  @Test func `buffers that come free one by one are left to the sender that waits for several`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 16, mtu: 9000, receiveBufferSize: 1514)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 16 + 8, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let (queue, pool) = (device.queues[0], device.pool)
    let held = Held()
    while true {
      let packet = try Packet(copying: numbered(1), in: pool)
      guard packet.isInPool else { break }
      held.hold(packet)
    }
    let outcome = Outcome()
    Task { await outcome.record { try await queue.submit(Self.foreign(4000)) } }
    try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
    await turn(queue, times: 3)
    for _ in 0..<3 {
      _ = held.take()
      // A packet that is new takes none of them, nor of those that are there for him and not yet his.
      for length in [64, 3000] {
        let isInPool = try Packet(copying: numbered(2, count: length), in: pool).isInPool
        #expect(!isInPool, "\(length) bytes")
      }
    }
    try await eventually("it is sent") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    held.letGo()
    await driver.releaseAll()
    try await device.close()
    try await eventually("every buffer is back") { pool.free == 24 }
  }

  @Test func `a burst that a program makes leaves senders of other queues what they wait for`()
    async throws
  {
    let loops = try (0..<2).map { try LoopExecutor(name: "burst \($0)") }
    let input = ScriptedDriver(mode: .hold, capacity: 16)
    let output = ScriptedDriver(mode: .hold, capacity: 16, mtu: 9000, receiveBufferSize: 1514)
    let pool = try PacketPool(.init(slots: 16 + 16 + 4, hugePages: false))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    configuration.loops = [loops[0]]
    let first = try await NetworkDevice.open(driver: input, configuration: configuration)
    configuration.loops = [loops[1]]
    let second = try await NetworkDevice.open(driver: output, configuration: configuration)
    let (from, to) = (first.queues[0], second.queues[0])
    let (received, kept) = (Held(), Held())
    // Too few are away from the first ring for it to be refilled.
    for number in 0..<2 { #expect(await input.deliver(numbered(number))) }
    await from.run { queue in
      while var burst = queue.receiveBurstIfAny() { while let packet = burst.popLast() { received.hold(packet) } }
    }
    while true {
      let packet = try Packet(copying: numbered(1), in: pool)
      guard packet.isInPool else { break }
      kept.hold(packet)
    }
    #expect(received.count == 2 && kept.count == 4)
    let outcome = Outcome()
    // It takes five.
    Task { await outcome.record { try await to.submit(Self.foreign(8500)) } }
    try await eventually("it waits") { to.statistics.poolEmpty == 1 }
    await turn(to, times: 3)
    for _ in 0..<2 { _ = kept.take() }
    await from.run { queue in
      #expect(pool.available == 2)
      var error = #expect(throws: NetworkDeviceError.self) { _ = try queue.makeBurst(count: 4, length: 60) }
      #expect(error?.code == .outOfMemory)
      #expect(pool.available == 2)
      // Buffers of the queue that makes the burst.
      received.letGo()
      error = #expect(throws: NetworkDeviceError.self) { _ = try queue.makeBurst(count: 4, length: 60) }
      #expect(error?.code == .outOfMemory)
      #expect(pool.available == 4)
    }
    _ = kept.take()
    try await eventually("it is sent") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    #expect(await output.held() == 1)
    kept.letGo()
    await output.releaseAll()
    try await first.close()
    try await second.close()
    try await eventually("every buffer is back") { pool.free == 36 }
  }

  /// One that is kept. In a function of its own: nobody else holds it afterwards.
  private static func submitAgain(_ kept: Held, to queue: NetworkQueue) async throws {
    guard let packet = kept.take() else { return }
    kept.hold(packet)
    try await queue.submit(packet)
  }

  @Test(arguments: [false, true])
  func `frames that a device gets after a sender has begun to wait are no reason to go on waiting`(
    isOfOtherQueue: Bool
  ) async throws {
    let scene = try await Scene(loops: 2)
    let to = scene.second.queues[0]
    let (mover, driver) = isOfOtherQueue ? (scene.first.queues[0], scene.input) : (to, scene.output)
    // The program keeps all four, and sends one of them again and again: there is always one with the device.
    try await Self.submitAgain(scene.kept, to: mover)
    try await eventually("it is with the device") { await driver.held() == 1 }
    let outcome = Outcome()
    Task { await outcome.record { try await to.send(Self.foreign()) } }
    try await eventually("it waits") { to.statistics.poolEmpty == 1 }
    // What was there before may free a buffer, for all that the queue knows: that is waited for.
    let start = await to.run { queue in queue.loop.now }
    try await eventually("time passes") { await to.run { queue in queue.loop.now } - start > 1_500_000_000 }
    #expect(outcome.finished == 0)
    try await Self.submitAgain(scene.kept, to: mover)
    try await eventually("it is there twice") { await driver.held() == 2 }
    await driver.release(at: 0)
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(await driver.held() == 1)
    #expect(outcome.errors.map { $0.code } == [.outOfMemory])
    await driver.releaseAll()
    try await scene.close()
  }

  @Test func `a sender that goes, or was served, leaves no claim behind`() async throws {
    let scene = try await Scene(loops: 2)
    let to = scene.second.queues[0]
    for _ in 0..<2 {
      let outcome = Outcome()
      let before = to.statistics.poolEmpty
      let task = Task { await outcome.record { try await to.send(Self.foreign()) } }
      try await eventually("it waits") { to.statistics.poolEmpty > before || outcome.finished == 1 }
      task.cancel()
      try await eventually("it ends") { outcome.finished == 1 }
    }
    await turn(to, times: 2)
    // On its own loop a packet that was received there goes back to the list of that queue again.
    await scene.first.queues[0].run { _ in
      scene.received.letGo()
      #expect(scene.pool.available == 0)
    }
    // And a new packet may have the last buffer.
    _ = scene.kept.take()
    let isInPool = try Packet(copying: numbered(3), in: scene.pool).isInPool
    #expect(isInPool)
    try await scene.close()
  }

  @Test(arguments: [false, true])
  func `a queue that ends with a wish keeps no loop alive in its pool`(isSender: Bool) async throws {
    let pool = try PacketPool(.init(slots: 8, hugePages: false))
    weak var gone: LoopExecutor?
    let held = Held()
    do {
      let loop = try LoopExecutor(name: "short-lived")
      gone = loop
      var configuration = NetworkDevice.Configuration()
      (configuration.pool, configuration.loops) = (pool, [loop])
      let driver = ScriptedDriver(mode: .hold, capacity: 16)
      let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
      let queue = device.queues[0]
      // All eight are posted, received and kept: the ring is empty and wants buffers.
      for number in 0..<8 { #expect(await driver.deliver(numbered(number))) }
      await queue.run { queue in
        while var burst = queue.receiveBurstIfAny() { while let packet = burst.popLast() { held.hold(packet) } }
      }
      try await eventually("the ring starves") { queue.statistics.starved > 0 }
      if isSender {
        let outcome = Outcome()
        Task { await outcome.record { try await queue.send(Self.foreign()) } }
        try await eventually("it waits") { queue.statistics.poolEmpty == 1 }
        try await device.close()
        try await eventually("it ends") { outcome.finished == 1 }
      } else {
        try await device.close()
      }
    }
    #expect(held.count == 8)
    try await eventually("the loop is gone") { gone == nil }
    held.letGo()
    #expect(pool.free == 8)
  }
}
