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
