internal import CNetdevSystem
internal import Glibc
internal import Synchronization

/// Where calls are made that may block: on threads of their own, so that no loop waits for them.
///
/// Some system calls wait for a lock of the kernel's that anybody on the machine may hold (that of all changes to links), others
/// for its grace periods, 10 ms and more each: closing a packet socket or a TAP queue is of both kinds. Threads are there only
/// while there is something to call, and so many at a time that 256 sockets are closed side by side.
package enum BlockingCalls {
  private struct State {
    var calls: [@Sendable () -> Void] = []
    var threads = 0
  }

  private static let state = Mutex(State())
  private static let mostThreads = 32
  /// Calls made aside that nobody waits for any more: each holds its thread until the system answers.
  package static let mostAbandoned = 32

  /// Whether a call that blocks here holds a loop.
  package static var wouldHoldLoop: Bool { netdev_current_loop_identity() != 0 }

  /// Whether calls are being made, or are due: of all that have called `start`. For tests.
  static var areUnderWay: Bool { state.withLock { $0.threads > 0 } }

  /// Makes a call here, unless this is a loop's thread: then elsewhere, and nobody is told when. From any thread.
  package static func run(_ call: @escaping @Sendable () -> Void) {
    if wouldHoldLoop { start(call) } else { call() }
  }

  /// Makes a call on another thread; calls are begun in their order. From any thread.
  ///
  /// Where no thread can be had and none is at work, the call is made here: late is better than never. In a simulated world, which
  /// has one thread, it is a step of its own.
  package static func start(_ call: @escaping @Sendable () -> Void) {
    if let world = LoopWorlds.current { return world.start(call) }
    let needsThread = state.withLock { state in
      state.calls.append(call)
      guard state.threads < mostThreads else { return false }
      state.threads += 1
      return true
    }
    guard needsThread else { return }
    if let thread = OwnThread("netdev-calls", work) {
      thread.detach()
    } else if state.withLock({ state in
      guard state.threads > 1 else { return true }
      state.threads -= 1
      return false
    }) {
      work()
    }
  }

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

  /// Makes the calls that are due; ends when there are none.
  private static func work() {
    while let call = state.withLock({ state -> (@Sendable () -> Void)? in
      guard !state.calls.isEmpty else {
        state.threads -= 1
        return nil
      }
      return state.calls.removeFirst()
    }) {
      call()
    }
  }
}

/// Calls that may block, one after the other: each begins when the one before it has ended.
package final class BlockingQueue: Sendable {
  private struct State {
    var calls: [@Sendable () -> Void] = []
    /// A thread makes them.
    var isWorking = false
    /// A thread has been asked for, and has not come yet.
    var isDue = false
  }

  private let state = Mutex(State())
  private let threadName: String?

  /// - Parameter thread: the name of a thread of the queue's own, which is there while there is something to call; where none can be
  ///   had, the calls wait for the next one. Without a name the queue shares threads with all others, and makes its calls in any case.
  package init(thread: String? = nil) { threadName = thread }

  /// Makes a call, after those that were there before. From any thread; what the call holds is let go of where it is made.
  package func start(_ call: @escaping @Sendable () -> Void) {
    let needsThread = state.withLock { state in
      state.calls.append(call)
      guard !state.isWorking, !state.isDue else { return false }
      state.isDue = true
      return true
    }
    guard needsThread else { return }
    let work = { @Sendable [self] in
      state.withLock { $0.isDue = false }
      self.work()
    }
    guard let threadName, LoopWorlds.current == nil else { return BlockingCalls.start(work) }
    if let thread = OwnThread(threadName, work) { thread.detach() } else { state.withLock { $0.isDue = false } }
  }

  /// Makes a call, after those that were there before, and waits for what comes of it. Not on a loop.
  ///
  /// It starts nothing: the thread that waits here may be the only one that there can be, so that it makes itself what nobody
  /// makes yet. In a simulated world, which has one thread, it makes all of them, but for one that is being made.
  package func wait<Result: Sendable>(for call: @escaping @Sendable () -> Result) -> Result {
    guard LoopWorlds.current == nil else {
      work()
      return call()
    }
    let made = Made<Result>()
    state.withLock { $0.calls.append { made.put(call()) } }
    work()
    return made.take()
  }

  /// Waits until everything has been called that was there before. Not on a loop; on one it does not wait.
  package func finish() {
    guard netdev_current_loop_identity() == 0 else { return }
    wait {}
  }

  /// Makes the calls, unless another thread does, or in a simulated world who is held up in the middle of one.
  private func work() {
    let isFirst = state.withLock { state in
      defer { state.isWorking = true }
      return !state.isWorking
    }
    guard isFirst else { return }
    while let call = state.withLock({ state -> (@Sendable () -> Void)? in
      guard !state.calls.isEmpty else {
        state.isWorking = false
        return nil
      }
      return state.calls.removeFirst()
    }) {
      call()
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

/// What a call has brought, for the one thread that waits for it.
private final class Made<Value: Sendable>: Sendable {
  private let value = Mutex<Value?>(nil)
  private let signal = Signal()

  func put(_ made: Value) {
    value.withLock { $0 = made }
    signal.raise()
  }

  func take() -> Value {
    while true {
      if let made = value.withLock({ $0 }) { return made }
      signal.wait()
    }
  }
}

/// What one thread waits for and another one brings about, once.
@safe private final class Signal: @unchecked Sendable {
  // Proof of Sendable: a semaphore is made for threads; it is destroyed with the last who holds it.
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { unsafe sem_init(semaphore, 0, 0) }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }

  func raise() { unsafe sem_post(semaphore) }

  // A signal may end the wait early: then it goes on.
  func wait() { while unsafe sem_wait(semaphore) != 0 {} }
}

extension LoopExecutor {
  /// Makes a call that may block, where it holds no loop, and promises its result on this one. Several are made side by side.
  ///
  /// Nothing takes a call back: one whose caller has stopped waiting is made all the same.
  package func call<Result: Sendable>(blocking body: @escaping @Sendable () -> Result) -> LoopPromise<Result> {
    let promise = LoopPromise<Result>(loop: self)
    BlockingCalls.start { promise.fulfil(body()) }
    return promise
  }
}
