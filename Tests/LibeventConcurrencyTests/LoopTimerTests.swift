import CNetdevSystem
import Glibc
import LibeventConcurrency
import Synchronization
import Testing

/// Schedules timers on its loop and writes down how late they were, in nanoseconds; negative when early.
private actor Clockwork {
  let loop: LoopExecutor
  private var timers: [LoopTimer] = []
  private(set) var lateness: [Int64] = []
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(_ loop: LoopExecutor) { self.loop = loop }

  /// One timer for each delay, all scheduled at once.
  func schedule(_ delays: [Duration]) throws {
    for delay in delays {
      var due: Int64 = 0
      let timer = try loop.makeTimer { [weak self] in
        let late = Int64(netdev_monotonic_nanoseconds()) - due
        self?.assumeIsolated { $0.lateness.append(late) }
      }
      due = Int64(netdev_monotonic_nanoseconds()) + Int64(delay / .nanoseconds(1))
      timer.schedule(after: delay)
      timers.append(timer)
    }
  }

  /// Keeps the loop from sleeping for a while, so that timers are seen by turns alone.
  func stayAwake(until count: Int) async {
    while lateness.count < count {
      loop.requestTurn()
      await Task.yield()
    }
  }
}

@Suite(.timeLimit(.minutes(2))) struct LoopTimerTests {
  private static let delays = (0..<200).map { Duration.microseconds(300 + 97 * $0) }

  @Test func `timers of a loop that sleeps fire, and none early`() async throws {
    let clockwork = Clockwork(try LoopExecutor(name: "test"))
    try await clockwork.schedule(Self.delays)
    while await clockwork.lateness.count < Self.delays.count { try await Task.sleep(for: .milliseconds(5)) }
    let lateness = await clockwork.lateness
    #expect(lateness.allSatisfy { $0 >= 0 }, "\(lateness)")
  }

  @Test func `timers of a loop that does not sleep fire too, and none early`() async throws {
    let clockwork = Clockwork(try LoopExecutor(name: "test"))
    try await clockwork.schedule(Self.delays)
    await clockwork.stayAwake(until: Self.delays.count)
    let lateness = await clockwork.lateness
    #expect(lateness.count == Self.delays.count)
    #expect(lateness.allSatisfy { $0 >= 0 }, "\(lateness)")
  }

  @Test(arguments: [Duration.seconds(-1), .zero, .nanoseconds(1), .seconds(-Int64.max)])
  func `a delay that is not positive is due at once`(delay: Duration) async throws {
    let fired = Atomic<Int>(0)
    let loop = try LoopExecutor(name: "test")
    let timer = OneTimer(loop)
    try await timer.make { fired.add(1, ordering: .relaxed) }
    await timer.schedule(after: delay)
    while fired.load(ordering: .relaxed) == 0 { try await Task.sleep(for: .milliseconds(1)) }
    await timer.end()
  }

  @Test(arguments: [Duration.seconds(1 << 32), .seconds(Int64.max), .seconds(9_223_372_037)])
  func `a delay of any length is accepted, and a loop that waits for it sleeps`(delay: Duration) async throws {
    let fired = Atomic<Int>(0)
    let loop = try LoopExecutor(name: "test")
    let timer = OneTimer(loop)
    try await timer.make { fired.add(1, ordering: .relaxed) }
    await timer.schedule(after: delay)
    let before = loop.statistics.sleeps
    for _ in 0..<20 {
      await timer.look()
      try await Task.sleep(for: .milliseconds(1))
    }
    #expect(fired.load(ordering: .relaxed) == 0)
    // Once for each look, and for nothing else.
    #expect(loop.statistics.sleeps <= before + 25)
    await timer.end()
  }
}

/// One timer on its loop.
actor OneTimer {
  private let loop: LoopExecutor
  private var timer: LoopTimer?
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(_ loop: LoopExecutor) { self.loop = loop }

  func make(_ handler: @escaping @Sendable () -> Void) throws {
    timer = try loop.makeTimer(handler: handler)
  }

  func schedule(after delay: Duration) { timer?.schedule(after: delay) }
  /// The timer, for whoever wants to drop it elsewhere.
  func giveAway() -> Parcel { Parcel(timer.take()) }
  func look() {}
  func end() {
    timer?.cancel()
    timer = nil
  }
}

/// Carries the last reference to something of a loop to another thread.
struct Parcel: @unchecked Sendable {
  // Proof of Sendable: to let go of a timer or a source is allowed anywhere, and nothing else is done with it here.
  private var content: AnyObject?
  init(_ content: AnyObject?) { self.content = content }
  mutating func drop() { content = nil }
}
