/// Something that is done again and again on a loop, by the loop's clock, until it is cancelled.
///
/// The times are those of a fixed grid that begins when it is made: a call that comes late makes no later one late, and times
/// that were missed altogether are left out. Made by `every(_:_:)` of a loop or a queue; used on the loop.
public final class LoopRepetition {
  /// The shortest time from one call to the next: a loop has other things to do.
  public static var shortest: Duration { .milliseconds(1) }

  private let interval: UInt64
  private var due: UInt64
  private var timer: LoopTimer?
  private var body: (() -> Void)?

  fileprivate init(_ loop: LoopExecutor, _ interval: Duration, _ body: @escaping () -> Void) throws(LoopError) {
    self.interval = max(interval, Self.shortest).nanosecondsRoundedUp
    self.body = body
    due = loop.now.addingSaturating(self.interval)
    // The loop holds the timer's handler, and with it this, until it is cancelled; nothing here holds the loop.
    timer = try loop.makeTimer { [weak loop] in self.fire(loop?.now ?? .max) }
    schedule(loop.now)
  }

  /// Whether it has been cancelled.
  public var isCancelled: Bool { body == nil }

  /// No call comes after this. On the loop; from elsewhere it ends in the loop's next turn.
  public func cancel() {
    timer?.cancel()
    timer = nil
    body = nil
  }

  private func fire(_ now: UInt64) {
    guard let body else { return }
    body()
    let missed = now > due ? (now - due) / interval : 0
    due = due.addingSaturating(interval.multipliedReportingOverflow(by: missed + 1).partialValue)
    schedule(now)
  }

  private func schedule(_ now: UInt64) {
    timer?.schedule(after: .nanoseconds(Int64(clamping: due > now ? due - now : 0)))
  }
}

extension LoopExecutor {
  /// Calls `body` on this loop every so often, the first time after `interval`, until the repetition is cancelled or the loop ends.
  /// On the loop only.
  ///
  /// `body` holds the loop while it runs, and is not called before it has returned.
  ///
  /// - Parameters:
  ///   - interval: from one call to the next; one shorter than a millisecond counts as one.
  ///   - body: called on the loop; kept, with all that it refers to, until then.
  /// - Throws: `notOnLoop` elsewhere than on the loop; what the system refuses.
  @discardableResult public func every(
    _ interval: Duration, _ body: @escaping () -> Void
  ) throws(LoopError) -> LoopRepetition {
    try LoopRepetition(self, interval, body)
  }
}
