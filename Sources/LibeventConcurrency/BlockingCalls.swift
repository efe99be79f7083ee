internal import CNetdevSystem
internal import Glibc
internal import Synchronization

/// Where calls are made that may block: on threads of their own, so that no loop waits for them.
///
/// Some system calls wait for a lock of the kernel's that anybody on the machine may hold (that of all changes to links), others
/// for its grace periods, 10 ms and more each: closing a packet socket or a TAP queue is of both kinds. Threads are there only
/// while there is something to call, and so many at a time that 256 sockets are closed side by side.
package enum BlockingCalls {
  private static let threads = CallThreads("netdev-calls", most: 32)

  /// Whether a call that blocks here holds a loop.
  package static var wouldHoldLoop: Bool { netdev_current_loop_identity() != 0 }

  /// Whether calls are being made, or are due: of all that have called `start`. For tests.
  package static var areUnderWay: Bool { threads.areThere }

  /// Calls that wait for a thread. For tests.
  package static var due: Int { threads.due }

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
    if !threads.start(call) { threads.callHere() }
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
  private let threads: CallThreads?

  /// - Parameter threads: what makes the calls; where none can be had, they wait for the next one to come. Without them the queue
  ///   shares those of all others, and makes its calls in any case.
  package init(on threads: CallThreads? = nil) { self.threads = threads }

  /// Makes a call, after those that were there before. From any thread; what the call holds is let go of where it is made.
  package func start(_ call: @escaping @Sendable () -> Void) {
    let (isFirst, isDue) = state.withLock { state in
      state.calls.append(call)
      let isFirst = !state.isWorking && !state.isDue
      if isFirst { state.isDue = true }
      return (isFirst, state.isDue)
    }
    guard isFirst else {
      // None could be had, perhaps, when the first one asked.
      if isDue { threads?.provide() }
      return
    }
    let work = { @Sendable [self] in
      state.withLock { $0.isDue = false }
      self.work()
    }
    guard let threads, LoopWorlds.current == nil else { return BlockingCalls.start(work) }
    threads.start(work)
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
  private let signal = OneSignal()

  func put(_ made: Value) {
    value.withLock { $0 = made }
    signal.raise()
  }

  func take() -> Value {
    while true {
      if let made = value.withLock({ $0 }) { return made }
      signal.pass()
    }
  }
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
