internal import Synchronization

extension BlockingCalls {
  /// Calls made aside that nobody waits for any more: each holds its thread until the system answers.
  package static let mostAbandoned = 32

  /// Makes a call on a thread of its own, which the calling thread hands its network namespace and its rights, and waits for what
  /// comes of it without holding a thread: for what belongs to where the caller is, and may block.
  ///
  /// Where no thread can be had, and in a simulated world, the call is made here. Nothing takes it back: what comes of a call whose
  /// task was cancelled is let go of on its thread.
  package static func aside<Result: Sendable>(
    isolation: isolated (any Actor)? = #isolation, _ body: @escaping @Sendable () -> Result
  ) async -> Aside<Result> {
    guard LoopWorlds.current == nil else { return .made(body()) }
    let abandoned = Abandoned.count
    guard abandoned < mostAbandoned else { return .refused(abandoned: abandoned) }
    let answer = Answer<Result>()
    return await withTaskCancellationHandler {
      // A closure that did not use it would leave the caller's thread, and the new one would have another's namespace.
      _ = isolation
      return await withCheckedContinuation { continuation in
        guard answer.isAwaited(by: continuation) else { return continuation.resume(returning: .cancelled) }
        let call = { @Sendable in answer.give(body()) }
        if let thread = OwnThread("netdev-aside", call) { thread.detach() } else { call() }
      }
    } onCancel: {
      answer.abandon()
    }
  }
}

/// What came of a call that was made aside.
package enum Aside<Result: Sendable>: Sendable {
  /// The call has been made.
  case made(Result)
  /// The task was cancelled first.
  case cancelled
  /// So many calls of cancelled tasks are still being made that this one was not begun.
  case refused(abandoned: Int)
}

/// How many calls are being made aside that nobody waits for.
private enum Abandoned {
  private static let number = Atomic(0)
  static var count: Int { number.load(ordering: .relaxed) }
  static func add(_ change: Int) { number.add(change, ordering: .relaxed) }
}

/// What a call brings, for the one task that waits for it until it is cancelled.
private final class Answer<Value: Sendable>: Sendable {
  private enum State {
    case notAwaited
    case awaited(CheckedContinuation<Aside<Value>, Never>)
    case abandoned
    case over
  }

  private let state = Mutex(State.notAwaited)

  /// False when the wait is over before it has begun.
  func isAwaited(by continuation: CheckedContinuation<Aside<Value>, Never>) -> Bool {
    state.withLock { state in
      guard case .notAwaited = state else { return false }
      state = .awaited(continuation)
      return true
    }
  }

  func give(_ value: Value) {
    let continuation = state.withLock { state in
      defer { state = .over }
      if case .abandoned = state { Abandoned.add(-1) }
      guard case .awaited(let continuation) = state else { return nil as CheckedContinuation<Aside<Value>, Never>? }
      return continuation
    }
    continuation?.resume(returning: .made(value))
  }

  func abandon() {
    let continuation = state.withLock { state in
      guard case .awaited(let continuation) = state else {
        state = .over
        return nil as CheckedContinuation<Aside<Value>, Never>?
      }
      state = .abandoned
      Abandoned.add(1)
      return continuation
    }
    continuation?.resume(returning: .cancelled)
  }
}
