import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Queues share a short pool: each sender gets its turn, in the order in which they came, and nobody holds what he cannot use.
@Suite(.timeLimit(.minutes(3))) struct PoolOrderTests {
  typealias Held = PoolShortageTests.Held

  /// Two devices with rings of 16 on a pool that has so many buffers for programs; those in `kept` are held by the test.
  struct Scene: Sendable {
    let (first, second): (NetworkDevice, NetworkDevice)
    let (input, output): (ScriptedDriver, ScriptedDriver)
    let pool: PacketPool
    let kept = Held()

    init(
      loops count: Int, spare: Int, _ firstMode: ScriptedDriver.Mode = .hold, _ secondMode: ScriptedDriver.Mode = .hold
    ) async throws {
      let loops = try (0..<count).map { try LoopExecutor(name: "order \($0)") }
      input = ScriptedDriver(mode: firstMode, capacity: 16, mtu: 9000, receiveBufferSize: 1514)
      output = ScriptedDriver(mode: secondMode, capacity: 16, mtu: 9000, receiveBufferSize: 1514)
      var configuration = NetworkDevice.Configuration()
      pool = try PacketPool(.init(slots: 32 + spare, hugePages: false))
      configuration.pool = pool
      configuration.loops = [loops[0]]
      first = try await NetworkDevice.open(driver: input, configuration: configuration)
      configuration.loops = [loops[count - 1]]
      second = try await NetworkDevice.open(driver: output, configuration: configuration)
    }

    func keepAll() throws {
      while true {
        let packet = try Packet(copying: numbered(1), in: pool)
        guard packet.isInPool else { return }
        kept.hold(packet)
      }
    }

    func close() async throws {
      kept.letGo()
      try await first.close()
      try await second.close()
      try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    }
  }

  /// A packet that lies elsewhere.
  private static func foreign(_ count: Int = 64) throws -> Packet {
    try Packet(copying: numbered(99, count: count), in: PacketPool(.init(slots: 1, hugePages: false)))
  }

  /// Frames of a size that takes so many buffers.
  private static func length(buffers: Int) -> Int { 64 + (buffers - 1) * 2048 }

  private static func begin(_ queue: NetworkQueue, buffers: Int, _ outcome: Outcome) async throws -> Task<Void, Never> {
    let before = queue.statistics.poolEmpty
    let task = Task { await outcome.record { try await queue.submit(Self.foreign(Self.length(buffers: buffers))) } }
    try await eventually("it waits") { queue.statistics.poolEmpty > before }
    await turn(queue, times: 3)
    return task
  }

  @Test(arguments: [1, 2])
  func `a sender gets buffers before those who came later to other queues, be their wishes smaller`(loops: Int)
    async throws
  {
    let scene = try await Scene(loops: loops, spare: 6)
    try scene.keepAll()
    let (from, to) = (scene.first.queues[0], scene.second.queues[0])
    let (large, small, last) = (Outcome(), Outcome(), Outcome())
    _ = try await Self.begin(from, buffers: 3, large)
    _ = try await Self.begin(to, buffers: 1, small)
    _ = try await Self.begin(from, buffers: 1, last)
    for _ in 0..<2 {
      _ = scene.kept.take()
      await turn(from, times: 3)
      await turn(to, times: 3)
    }
    #expect(small.finished == 0 && large.finished == 0)
    _ = scene.kept.take()
    try await eventually("who came first is served") { large.finished == 1 }
    await turn(from, times: 3)
    await turn(to, times: 3)
    #expect(small.finished == 0 && last.finished == 0)
    _ = scene.kept.take()
    try await eventually("then who came next") { small.finished == 1 }
    await turn(from, times: 3)
    #expect(last.finished == 0)
    _ = scene.kept.take()
    try await eventually("then the last") { last.finished == 1 }
    #expect((large.errors + small.errors + last.errors).isEmpty)
    await scene.input.releaseAll()
    await scene.output.releaseAll()
    try await scene.close()
  }

  /// How a sender that waits for several buffers goes.
  enum Way: CaseIterable { case cancelled, failed, closed }

  @Test(arguments: Way.allCases)
  func `what was left to a sender that goes is for those behind it`(_ way: Way) async throws {
    let scene = try await Scene(loops: 2, spare: 6)
    try scene.keepAll()
    let (from, to) = (scene.first.queues[0], scene.second.queues[0])
    let (large, small) = (Outcome(), Outcome())
    let task = try await Self.begin(from, buffers: 5, large)
    for _ in 0..<2 { _ = scene.kept.take() }
    await turn(from, times: 3)
    _ = try await Self.begin(to, buffers: 1, small)
    #expect(small.finished == 0)
    switch way {
    case .cancelled: task.cancel()
    case .failed: break
    case .closed: try await scene.first.close()
    }
    try await eventually("it goes") { large.finished == 1 }
    #expect(large.errors.count == 1)
    try await eventually("the other is served") { small.finished == 1 }
    #expect(small.errors.isEmpty)
    await scene.output.releaseAll()
    try await scene.close()
  }

  @Test func `a failed sender's claim goes with it, and the next one's is what it wants`() async throws {
    let scene = try await Scene(loops: 1, spare: 6)
    try scene.keepAll()
    let queue = scene.first.queues[0]
    let (large, small) = (Outcome(), Outcome())
    _ = try await Self.begin(queue, buffers: 5, large)
    // It stands behind the other: it has waited as long when the other fails.
    let task = Task { await small.record { try await queue.submit(Self.foreign(Self.length(buffers: 2))) } }
    try await eventually("it waits, too") { queue.statistics.poolEmpty == 2 }
    try await eventually("the first fails") { large.finished == 1 }
    task.cancel()
    await task.value
    let third = Outcome()
    _ = try await Self.begin(queue, buffers: 2, third)
    for _ in 0..<3 { _ = scene.kept.take() }
    try await eventually("the other is served") { third.finished == 1 }
    #expect(third.errors.isEmpty)
    // Nothing is claimed any more: the one that is left is anybody's.
    let isInPool = try Packet(copying: numbered(2), in: scene.pool).isInPool
    #expect(isInPool)
    await scene.input.releaseAll()
    try await scene.close()
  }

  /// Frames that go round, each in a buffer that its sender has waited for.
  private static func keepBusy(
    _ queue: NetworkQueue, senders: Int, _ sent: Tally, until isOver: @escaping @Sendable () -> Bool
  ) -> [Task<Void, Never>] {
    (0..<senders).map { _ in
      Task {
        await queue.run { queue in
          while !isOver() {
            guard let packet = try? Self.foreign(), (try? await queue.send(packet)) != nil else { return }
            sent.add(0)
          }
        }
      }
    }
  }

  @Test(arguments: [1, 2])
  func `a sender of one queue has its turn while those of another take every buffer that comes`(loops: Int)
    async throws
  {
    let scene = try await Scene(loops: loops, spare: 4, .release, .release)
    let (busy, lone) = (scene.first.queues[0], scene.second.queues[0])
    let (sent, isOver) = (Tally(1), Flag())
    let senders = Self.keepBusy(busy, senders: 40, sent) { isOver.isSet }
    try await eventually("they are busy") { sent.total > 1000 }
    for buffers in [1, 1, 3, 1, 4, 1] {
      try await lone.send(Self.foreign(Self.length(buffers: buffers)))
    }
    isOver.set()
    for sender in senders { await sender.value }
    try await scene.close()
  }

  @Test func `who waits behind others is patient while they are served, however long that takes`() async throws {
    let scene = try await Scene(loops: 2, spare: 4, .hold, .release)
    let (slow, lone) = (scene.first.queues[0], scene.second.queues[0])
    let (ahead, last) = (Outcome(), Outcome())
    for _ in 0..<16 { Task { await ahead.record { try await slow.send(Self.foreign()) } } }
    try await eventually("four are with the device, the others wait") { slow.statistics.poolEmpty == 12 }
    let start = await slow.run { queue in queue.loop.now }
    _ = try await Self.begin(lone, buffers: 1, last)
    // Each release serves the next in front: the frames of when it came are back long before its turn.
    for number in 1...8 {
      let due = start + UInt64(number) * 400_000_000
      try await eventually("time passes") { await slow.run { queue in queue.loop.now } >= due }
      await scene.input.release(at: 0)
    }
    #expect(last.finished == 0)
    for number in 9...16 {
      try await eventually("one is with the device") { await scene.input.held() > 0 }
      await scene.input.release(at: 0)
      if number >= 13 { try await eventually("its turn has come") { last.finished == 1 } }
    }
    try await eventually("all are sent") { ahead.finished == 16 && last.finished == 1 }
    #expect((ahead.errors + last.errors).isEmpty)
    try await scene.close()
  }

  @Test func `who waits for several buffers is patient while they come one by one`() async throws {
    let scene = try await Scene(loops: 2, spare: 4)
    try scene.keepAll()
    let queue = scene.second.queues[0]
    let outcome = Outcome()
    let start = await queue.run { queue in queue.loop.now }
    _ = try await Self.begin(queue, buffers: 4, outcome)
    for number in 1...4 {
      let due = start + UInt64(number) * 700_000_000
      try await eventually("time passes") { await queue.run { queue in queue.loop.now } >= due }
      #expect(outcome.finished == 0)
      _ = scene.kept.take()
    }
    try await eventually("it is sent") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    await scene.output.releaseAll()
    try await scene.close()
  }

  @Test func `a claim that only a slow device could fulfil keeps nothing from those behind it for long`()
    async throws
  {
    let scene = try await Scene(loops: 2, spare: 6, .hold, .release)
    let (hung, lone) = (scene.first.queues[0], scene.second.queues[0])
    for _ in 0..<4 { try await hung.submit(Self.foreign()) }
    let large = Outcome()
    let task = try await Self.begin(hung, buffers: 5, large)
    for _ in 0..<20 { try await lone.send(Self.foreign()) }
    #expect(large.finished == 0)
    await scene.input.releaseAll()
    try await eventually("it has its turn after all") { large.finished == 1 }
    await task.value
    #expect(large.errors.isEmpty)
    await scene.input.releaseAll()
    try await scene.close()
  }

  @Test(arguments: [1, 2])
  func `senders that wait for room in a ring hold no buffers meanwhile`(loops: Int) async throws {
    let scene = try await Scene(loops: loops, spare: 40, .hold, .release)
    let (hung, other) = (scene.first.queues[0], scene.second.queues[0])
    let outcome = Outcome()
    let senders = (0..<60).map { _ in Task { await outcome.record { try await hung.send(Self.foreign()) } } }
    try await eventually("the ring is full, the others wait") {
      let count = await scene.input.held()
      return count == 16 && hung.statistics.ringFull == 44
    }
    await turn(hung, times: 3)
    #expect(scene.pool.free == 24)
    for _ in 0..<100 { try await other.send(Self.foreign()) }
    // And those who have their packets go on when there is room, behind those who came first.
    let behind = Outcome()
    let last = Task {
      await behind.record { try await hung.send(Packet(copying: numbered(5), in: scene.pool)) }
    }
    try await eventually("it waits") { hung.statistics.ringFull == 45 }
    for _ in 0..<2 {
      await scene.input.releaseFirst(16)
      try await eventually("the next are there") { await scene.input.held() == 16 }
    }
    #expect(behind.finished == 0 && outcome.finished == 32)
    for _ in 0..<2 {
      try await eventually("the next are there") { await scene.input.held() > 0 }
      await scene.input.releaseFirst(16)
    }
    for sender in senders { await sender.value }
    await last.value
    #expect((outcome.errors + behind.errors).isEmpty)
    try await scene.close()
  }

  @Test(arguments: [1, 2])
  func `a sender that the pool keeps from the ring goes on when there are buffers, without a release`(loops count: Int)
    async throws
  {
    let loops = try (0..<count).map { try LoopExecutor(name: "room \($0)") }
    let (driver, other) = (ScriptedDriver(mode: .hold, capacity: 64), ScriptedDriver(mode: .hold, capacity: 1))
    let pool = try PacketPool(.init(slots: 169, reserve: 64, hugePages: false))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    configuration.loops = [loops[0]]
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    configuration.loops = [loops[count - 1]]
    let second = try await NetworkDevice.open(driver: other, configuration: configuration)
    let queue = device.queues[0]
    let (received, kept) = (Held(), Held())
    while true {
      let packet = try Packet(copying: numbered(1), in: pool)
      guard packet.isInPool else { break }
      kept.hold(packet)
    }
    // The ring is refilled from the reserve, until less than half of it is left.
    for _ in 0..<9 {
      for number in 0..<8 { #expect(await driver.deliver(numbered(number))) }
      await queue.run { queue in
        while var burst = queue.receiveBurstIfAny() { while let packet = burst.popLast() { received.hold(packet) } }
      }
      await turn(queue, times: 3)
    }
    #expect(received.count == 72)
    let outcome = Outcome()
    let total = 40
    for _ in 0..<total {
      guard let packet = received.take() else { break }
      Task { await outcome.record { try await queue.run { queue in try await queue.submit(packet) } } }
    }
    try await eventually("some wait for room") { queue.statistics.ringFull > 0 }
    await turn(queue, times: 3)
    let sleeps = queue.loop.statistics.sleeps
    try await eventually("the loop sleeps, whenever it has been woken") {
      await turn(queue, times: 1)
      return queue.loop.statistics.sleeps >= sleeps + 3
    }
    #expect(outcome.finished < total)
    // Nobody comes to that loop from here on.
    kept.letGo()
    try await eventually("all are accepted") { outcome.finished == total }
    #expect(outcome.errors.isEmpty)
    #expect(await driver.held() == total)
    await driver.releaseAll()
    received.letGo()
    try await device.close()
    try await second.close()
    try await eventually("every buffer is back") { pool.free == 169 }
  }
}

/// Says that something is over.
private final class Flag: Sendable {
  private let value = Atomic<Bool>(false)
  var isSet: Bool { value.load(ordering: .relaxed) }
  func set() { value.store(true, ordering: .relaxed) }
}
