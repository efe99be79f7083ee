import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Invariant 8: one loop serves completions, reception, submissions, timers and other tasks, and turns end.
@Suite(.timeLimit(.minutes(3))) struct TurnTests {
  /// Keeps frames going round on a loopback for ever: a body that seldom has a reason to suspend.
  private func busy(_ url: String, _ body: (NetworkDevice) async throws -> Void) async throws {
    let device = try await NetworkDevice.open(url)
    let runner = Task {
      try await device.run { queue in
        for number in 0..<64 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
        for await packet in queue.packets { try await queue.submit(packet) }
      }
    }
    try await eventually("frames go round") { device.queues[0].statistics.packetsReceived > 10_000 }
    try await body(device)
    try await device.close()
    _ = await runner.result
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test(arguments: ["loopback:", "loopback:?placement=own"])
  func `a busy iteration lets other tasks of its loop and timers have their turn`(_ url: String) async throws {
    try await busy(url) { device in
      let scope = LoopScope(device.queues[0].loop)
      for _ in 0..<1000 { await scope.run { _ in } }
      let before = device.queues[0].statistics.packetsReceived
      let timer = TimerCount(device.queues[0].loop)
      try await timer.start()
      try await eventually("a timer fires a hundred times") { await timer.fired >= 100 }
      let after = device.queues[0].statistics.packetsReceived
      #expect(after > before)
    }
  }

  @Test func `a send from elsewhere gets through a busy queue`() async throws {
    try await busy("loopback:") { device in
      for number in 0..<200 { try await device.queues[0].send(Packet(copying: numbered(number), in: device.pool)) }
    }
  }

  @Test func `everything submitted in one turn costs at most one doorbell a ring`() async throws {
    let device = try await NetworkDevice.open("loopback:")
    try await device.run { queue in
      for burst in 1...50 {
        let before = queue.statistics.driver.kicks
        let turn = queue.loop.turn
        for number in 0..<100 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
        var received = 0
        for await _ in queue.packets {
          received += 1
          if received == 100 { break }
        }
        // One for the frames and one for new receive buffers, each turn; a hundred frames take two or three turns.
        let turns = queue.loop.turn - turn + 1
        #expect(turns <= 6, "burst \(burst)")
        #expect(queue.statistics.driver.kicks - before <= 2 * turns, "burst \(burst)")
      }
    }
  }

  @Test func `a submitted frame is out at the end of its turn although its task goes on without the queue`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    try await device.queues[0].submit(Packet(copying: numbered(1), in: device.pool))
    try await eventually("the device has it") { await driver.held() == 1 }
    try await device.close()
  }

  /// Invariant 4, the receiving side.
  @Test func `nobody receives: sends complete all the same, and the device drops as a NIC does`() async throws {
    let device = try await NetworkDevice.open("loopback:")
    let queue = device.queues[0]
    for number in 0..<2000 { try await queue.send(Packet(copying: numbered(number), in: device.pool)) }
    let statistics = queue.statistics
    #expect(statistics.packetsReleased == 2000)
    #expect(statistics.packetsReceived == 0)
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  /// Invariant 13.
  @Test func `a job that holds the loop is counted`() async throws {
    let stalls = Atomic<Int>(0)
    var reports = LoopReports()
    reports.onStall = { _ in stalls.add(1, ordering: .relaxed) }
    let loop = try LoopExecutor(name: "stalled", stallBound: .milliseconds(20), reports: reports)
    await LoopScope(loop).run { _ in
      let end = ContinuousClock.now + .milliseconds(80)
      while ContinuousClock.now < end {}
    }
    try await eventually("it is noticed") { stalls.load(ordering: .relaxed) == 1 }
  }

  /// Invariant 9: the setting; that an idle loop sleeps without it is shown with the virtio driver.
  @Test func `busy polling keeps an idle loop awake`() async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.busyPoll = .seconds(600)
    let device = try await NetworkDevice.open("loopback:", configuration: configuration)
    let queue = device.queues[0]
    let scope = LoopScope(queue.loop)
    try await queue.send(Packet(copying: numbered(1), in: device.pool))
    let before = await scope.run { _ in (queue.loop.turn, queue.loop.statistics.sleeps) }
    try await Task.sleep(for: .milliseconds(50))
    let after = await scope.run { _ in (queue.loop.turn, queue.loop.statistics.sleeps) }
    #expect(after.0 > before.0 + 2)
    #expect(after.1 == before.1)
    try await device.close()
  }
}

/// A timer that schedules itself again.
private actor TimerCount {
  let loop: LoopExecutor
  private var timer: LoopTimer?
  var fired = 0
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
  init(_ loop: LoopExecutor) { self.loop = loop }

  func start() throws {
    timer = try loop.makeTimer { [weak self] in self?.assumeIsolated { $0.fire() } }
    timer?.schedule(after: .microseconds(100))
  }

  private func fire() {
    fired += 1
    if fired < 100 { timer?.schedule(after: .microseconds(100)) }
  }
}
