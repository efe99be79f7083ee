/// A descriptor watched by a loop: the handler runs on the loop's thread whenever it is ready.
///
/// Made, resumed, suspended and cancelled on the loop. Level-triggered: a handler that leaves the descriptor ready runs
/// again. The descriptor stays the caller's: cancel the source first, then close.
public final class LoopSource {
  /// What to watch for.
  public enum Readiness: Sendable, Hashable {
    /// The descriptor can be read.
    case readable
    /// The descriptor can be written.
    case writable
  }

  private let event: any LoopBackendEvent

  init(event: any LoopBackendEvent) { self.event = event }

  deinit { event.cancel() }

  /// Starts watching (a new source is suspended).
  public func resume() { event.arm(afterNanoseconds: 0) }

  /// Stops watching until resumed.
  public func suspend() { event.disarm() }

  /// Ends it: the handler will not run again.
  public func cancel() { event.cancel() }
}

/// A one-shot timer on a loop. Made, scheduled and cancelled on the loop.
public final class LoopTimer {
  private let event: any LoopBackendEvent

  init(event: any LoopBackendEvent) { self.event = event }

  deinit { event.cancel() }

  /// Fires once, no earlier than after `delay`; a schedule that is still pending is replaced.
  public func schedule(after delay: Duration) {
    let (seconds, attoseconds) = delay.components
    guard seconds >= 0, attoseconds >= 0 else { return event.arm(afterNanoseconds: 0) }
    let whole = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    let nanoseconds =
      whole.overflow ? UInt64.max : whole.partialValue.addingSaturating(UInt64(attoseconds) / 1_000_000_000)
    event.arm(afterNanoseconds: nanoseconds)
  }

  /// Forgets a pending schedule; the timer can be scheduled again.
  public func unschedule() { event.disarm() }

  /// Ends it: the handler will not run again.
  public func cancel() { event.cancel() }
}

extension UInt64 {
  func addingSaturating(_ other: UInt64) -> UInt64 {
    let sum = addingReportingOverflow(other)
    return sum.overflow ? .max : sum.partialValue
  }
}
