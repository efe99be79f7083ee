// From thread to loop and from loop to loop without a task: what needs no result runs, what does promises one.
extension LoopExecutor {
  /// Runs `body` on the loop, in its next turn and outside any task; from any thread, the loop's own included. Calls from one
  /// thread run in their order.
  ///
  /// `body` shall be short: it holds the loop. The loop lives until it has run; one that is turned by hand and never again
  /// keeps it.
  public func execute(_ body: @escaping @Sendable () -> Void) {
    inlet.execute { withExtendedLifetime(self) { body() } }
  }

  /// Runs `body` on another loop, or on this one, and promises its result on this one. Several calls to several loops run side
  /// by side: make them all, then wait for each.
  ///
  /// Nothing takes a call back: one whose caller has stopped waiting runs all the same, as soon as its loop gets to it.
  public func call<Result: Sendable>(
    on other: LoopExecutor, _ body: @escaping @Sendable () -> Result
  ) -> LoopPromise<Result> {
    let promise = LoopPromise<Result>(loop: self)
    other.execute { promise.fulfil(body()) }
    return promise
  }

  /// Waits by the loop's clock; from any task.
  ///
  /// - Returns: false when the task was cancelled before the time was over.
  @discardableResult public func sleep(for time: Duration) async -> Bool {
    if case .timedOut = await LoopPromise<Void>(loop: self).value(within: time) { return true }
    return false
  }
}

/// A point in time of a loop's clock, and what is left until then. Made and asked on the loop; elsewhere nothing of the time
/// passes.
public struct LoopDeadline: Sendable {
  private let loop: LoopExecutor
  private let time: UInt64

  /// So much later than now.
  public init(_ loop: LoopExecutor, after time: Duration) {
    self.loop = loop
    self.time = loop.now.addingSaturating(time.nanosecondsRoundedUp)
  }

  /// What is left; zero when it is over.
  public var remaining: Duration {
    let now = loop.now
    return time > now ? .nanoseconds(Int64(clamping: time - now)) : .zero
  }
}
