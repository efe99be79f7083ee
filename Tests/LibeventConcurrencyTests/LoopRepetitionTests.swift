import LibeventConcurrency
import Synchronization
import TestSupport
import Testing

/// Repetitions that are cancelled elsewhere than on their loop.
@Suite(.timeLimit(.minutes(1))) struct LoopRepetitionTests {
  @Test func `cancelled elsewhere it is over at once, and what it refers to goes on its loop`() async throws {
    let loop = try LoopExecutor(name: "shared")
    let maker = Maker(loop)
    for _ in 0..<20 {
      let end = End()
      #expect(try await maker.start(end).value)
      try await eventually("what it referred to has gone") { end.wasOnLoop != nil }
      #expect(end.wasOnLoop == true)
    }
  }

  @Test func `it may be cancelled at the moment at which it is due`() async throws {
    let maker = Maker(try LoopExecutor(name: "shared"))
    for round in 0..<500 { await (try await maker.race(.microseconds(round % 100))).value }
  }

  @Test func `one that is due when it is cancelled elsewhere is not called any more`() async throws {
    let maker = Maker(try LoopExecutor(name: "shared"))
    for _ in 0..<20 {
      let calls = Calls()
      try await maker.cancelWhenDue(calls)
      await maker.turn(times: 5)
      #expect(calls.count == 0)
    }
  }

  @Test func `times that passed while the loop was held are left out`() async throws {
    let maker = Maker(try LoopExecutor(name: "shared"))
    let calls = Calls()
    let (repetition, end) = try await maker.hold(for: .milliseconds(300), calling: calls)
    try await eventually("it is called again and again") { calls.count >= 20 }
    // One that was due, and from then on one for each time that came.
    let (count, passed) = await maker.look(calls, since: end)
    #expect(Duration.milliseconds(count - 2) <= passed, "\(count) in \(passed)")
    repetition.cancel()
  }
}

private actor Maker: LoopActor {
  nonisolated let loop: LoopExecutor
  init(_ loop: LoopExecutor) { self.loop = loop }

  /// Says whether it was over when it had been cancelled.
  func start(_ end: End) throws -> Task<Bool, Never> {
    let token = Token(end, loop)
    let repetition = try loop.every(.milliseconds(1)) { withExtendedLifetime(token) {} }
    return Task.detached {
      repetition.cancel()
      return repetition.isCancelled
    }
  }

  /// Cancels about when the first call comes.
  func race(_ late: Duration) throws -> Task<Void, Never> {
    let clock = loop.clock
    let due = clock.now.advanced(by: .milliseconds(1) + late)
    let repetition = try loop.every(.milliseconds(1)) { _ = [UInt8](repeating: 1, count: 100) }
    return Task.detached {
      while clock.now < due {}
      repetition.cancel()
    }
  }

  /// Holds the loop until a repetition is due and somebody else has cancelled it.
  func cancelWhenDue(_ calls: Calls) throws {
    let due = loop.clock.now.advanced(by: .milliseconds(2))
    let repetition = try loop.every(.milliseconds(1)) { calls.add() }
    let hasCancelled = Calls()
    Task.detached {
      repetition.cancel()
      hasCancelled.add()
    }
    while loop.clock.now < due || hasCancelled.count == 0 {}
  }

  /// Begins a repetition of a millisecond, and holds the loop; says when that ended.
  func hold(for time: Duration, calling calls: Calls) throws -> (LoopRepetition, LoopClock.Instant) {
    let end = loop.clock.now.advanced(by: time)
    let repetition = try loop.every(.milliseconds(1)) { calls.add() }
    while loop.clock.now < end {}
    return (repetition, loop.clock.now)
  }

  /// The calls so far, and how long it is since an instant.
  func look(_ calls: Calls, since instant: LoopClock.Instant) -> (Int, Duration) {
    (calls.count, instant.duration(to: loop.clock.now))
  }

  func turn(times: UInt64) async {
    let start = loop.turn
    while loop.turn - start < times { await loop.sleep(for: .milliseconds(1)) }
  }
}

/// How often something was called.
private final class Calls: Sendable {
  private let calls = Atomic<Int>(0)
  var count: Int { calls.load(ordering: .acquiring) }
  func add() { calls.add(1, ordering: .releasing) }
}

/// Whether something went on the loop; nil as long as it is there.
private final class End: Sendable {
  private let state = Mutex<Bool?>(nil)
  var wasOnLoop: Bool? { state.withLock { $0 } }
  func note(_ isOnLoop: Bool) { state.withLock { $0 = isOnLoop } }
}

private final class Token {
  private let end: End
  private let loop: LoopExecutor

  init(_ end: End, _ loop: LoopExecutor) {
    self.end = end
    self.loop = loop
  }

  deinit { end.note(loop.isOnLoop) }
}
