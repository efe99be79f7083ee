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
