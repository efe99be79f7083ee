import LibeventConcurrency
import TestSupport
import Testing

/// A counter on a loop.
private actor Counter: LoopActor {
  nonisolated let loop: LoopExecutor
  private(set) var count = 0

  init(_ loop: LoopExecutor) { self.loop = loop }

  func add() -> UInt64 {
    count += 1
    return loop.turn
  }

  func start(_ interval: Duration) throws -> LoopRepetition { try every(interval) { _ = $0.add() } }
}

/// Another actor of the same loop.
private actor Neighbor: LoopActor {
  nonisolated let loop: LoopExecutor
  init(_ loop: LoopExecutor) { self.loop = loop }

  /// The turns that calls to the counter ran in, between the turns that this began and ended in.
  func call(_ counter: Counter, times: Int) async -> [UInt64] {
    var turns = [loop.turn]
    for _ in 0..<times { turns.append(await counter.add()) }
    turns.append(loop.turn)
    return turns
  }
}

@Suite(.timeLimit(.minutes(1))) struct LoopActorTests {
  @Test func `a call from the same loop goes on in the same turn`() async throws {
    let loop = try LoopExecutor(name: "shared")
    let (counter, neighbor) = (Counter(loop), Neighbor(loop))
    let turns = await neighbor.call(counter, times: 100)
    #expect(Set(turns).count == 1, "\(turns)")
    #expect(await counter.count == 100)
  }

  @Test func `calls from elsewhere hop, and none is lost`() async throws {
    let counter = Counter(try LoopExecutor(name: "shared"))
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<8 { group.addTask { for _ in 0..<100 { _ = await counter.add() } } }
    }
    #expect(await counter.count == 800)
  }

  @Test func `a repetition goes with its actor, and the loop with both`() async throws {
    weak var gone: LoopExecutor?
    do {
      let loop = try LoopExecutor(name: "shared")
      gone = loop
      let counter = Counter(loop)
      try await counter.run(until: 3)
    }
    try await eventually("the loop has ended") { gone == nil }
  }
}

extension Counter {
  fileprivate func run(until wanted: Int) async throws {
    _ = try start(.milliseconds(1))
    while count < wanted { await loop.sleep(for: .milliseconds(1)) }
  }
}

/// The loop's clock.
@Suite(.timeLimit(.minutes(1))) struct LoopClockTests {
  @Test func `instants can be gone on from and back, and differ by durations`() {
    let start = LoopClock.Instant(nanoseconds: 1_000)
    #expect(start.advanced(by: .nanoseconds(5)).nanoseconds == 1_005)
    #expect(start.advanced(by: .nanoseconds(-5)).nanoseconds == 995)
    #expect(start.advanced(by: .seconds(-1)).nanoseconds == 0)
    #expect(start.advanced(by: .seconds(Int64.max)).nanoseconds == .max)
    #expect(start.duration(to: start.advanced(by: .seconds(1))) == .seconds(1))
    #expect(start.advanced(by: .seconds(1)).duration(to: start) == .seconds(-1))
    #expect(start < start.advanced(by: .nanoseconds(1)))
  }

  @Test func `it goes on everywhere, and a loop that is turned by hand has its own time`() async throws {
    let loop = try LoopExecutor(name: "clock")
    let before = loop.clock.now
    try await loop.clock.sleep(for: .milliseconds(2))
    #expect(before.duration(to: loop.clock.now) >= .milliseconds(2))
    let still = LoopExecutor(name: "still", backend: StillBackend())
    #expect(still.clock.now.nanoseconds == 0)
    still.turnOnce()
    #expect(still.clock.now.nanoseconds == 1)
  }

  @Test func `cancellation ends a sleep`() async throws {
    let clock = try LoopExecutor(name: "clock").clock
    let sleeping = Task { try await clock.sleep(for: .seconds(3600)) }
    sleeping.cancel()
    await #expect(throws: CancellationError.self) { try await sleeping.value }
  }
}
