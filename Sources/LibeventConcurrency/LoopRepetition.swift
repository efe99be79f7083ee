internal import Synchronization

/// Something that is done again and again on a loop, by the loop's clock, until it is cancelled.
///
/// The times are those of a fixed grid that begins when it is made: a call that comes late makes no later one late, and times
/// that were missed altogether are left out. Made by `every(_:_:)` of a loop or a queue, on the loop; whoever has it may be anywhere.
public final class LoopRepetition: Sendable {
  /// The shortest time from one call to the next: a loop has other things to do.
  public static var shortest: Duration { .milliseconds(1) }

  private let end: RepetitionEnd
  // Proof: set once. `cancel()` of a timer, and its end, are made for any thread; all else is called on the loop, by its beat.
  nonisolated(unsafe) private let timer: LoopTimer

  fileprivate init(_ loop: LoopExecutor, _ interval: Duration, _ body: @escaping () -> Void) throws(LoopError) {
    end = RepetitionEnd()
    let beat = Beat(loop.now, interval, end, body)
    // The loop holds the timer's handler, and with it the beat, until it is cancelled; nothing here holds the loop.
    let timer = try loop.makeTimer { [weak loop] in beat.fire(loop?.now ?? .max) }
    beat.start(timer, loop.now)
    unsafe self.timer = timer
  }

  /// Whether it has been cancelled.
  public var isCancelled: Bool { end.hasCome }

  /// No call comes after this, and on the loop what the calls refer to is let go. From elsewhere one may be under way at this moment, and
  /// it is the loop that lets go, in its next turn.
  public func cancel() {
    end.come()
    unsafe timer.cancel()
  }
}

/// Whether a repetition is over: said by anybody, looked at before each call.
private final class RepetitionEnd: Sendable {
  private let flag = Atomic<Bool>(false)
  var hasCome: Bool { flag.load(ordering: .acquiring) }
  func come() { flag.store(true, ordering: .releasing) }
}

/// What belongs to the loop of a repetition: its timer's handler has it, and nobody else.
private final class Beat {
  private let interval: UInt64
  private var due: UInt64
  private var timer: LoopTimer?
  private let end: RepetitionEnd
  private let body: () -> Void

  init(_ now: UInt64, _ interval: Duration, _ end: RepetitionEnd, _ body: @escaping () -> Void) {
    self.interval = max(interval, LoopRepetition.shortest).nanosecondsRoundedUp
    self.end = end
    self.body = body
    due = now.addingSaturating(self.interval)
  }

  func start(_ timer: LoopTimer, _ now: UInt64) {
    self.timer = timer
    schedule(now)
  }

  func fire(_ now: UInt64) {
    guard !end.hasCome else { return }
    body()
    let missed = now > due ? (now - due) / interval : 0
    due = due.addingSaturating(interval.multipliedReportingOverflow(by: missed + 1).partialValue)
    if !end.hasCome { schedule(now) }
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
