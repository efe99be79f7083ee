/// A one-shot timer on a loop: no earlier than asked for, and at most a millisecond late on a quiet machine.
///
/// Made, scheduled and unscheduled on the loop; elsewhere these calls do nothing.
public final class LoopTimer {
  private let handle: LoopEventHandle

  init(_ handle: LoopEventHandle) { self.handle = handle }

  deinit { handle.cancel() }

  /// Fires once, no earlier than after `delay`; a schedule that is still pending is replaced. A delay that is not positive
  /// fires in the loop's next round, one of more than 292 years never.
  public func schedule(after delay: Duration) {
    guard handle.isHere else { return }
    handle.event.arm(afterNanoseconds: delay.nanosecondsRoundedUp)
  }

  /// Forgets a pending schedule; the timer can be scheduled again.
  public func unschedule() {
    guard handle.isHere else { return }
    handle.event.disarm()
  }

  /// Ends it: after this call the handler does not run again. From elsewhere than the loop it ends in the loop's next turn.
  public func cancel() { handle.cancel() }
}

extension Duration {
  /// Whole nanoseconds, no fewer than it says; 0 for what is negative, the greatest number for what is out of range.
  package var nanosecondsRoundedUp: UInt64 {
    // A duration of more seconds than there are numbers has no components.
    let (seconds, attoseconds) = min(max(self, .zero), .seconds(Int64.max)).components
    let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    let (part, rest) = UInt64(attoseconds).quotientAndRemainder(dividingBy: 1_000_000_000)
    return overflow ? .max : whole.addingSaturating(part + (rest == 0 ? 0 : 1))
  }

  /// Whole nanoseconds, no more than it says; 0 for what is negative, the greatest number for what is out of range.
  package var nanosecondsRoundedDown: UInt64 {
    let (seconds, attoseconds) = min(max(self, .zero), .seconds(Int64.max)).components
    let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    return overflow ? .max : whole.addingSaturating(UInt64(attoseconds / 1_000_000_000))
  }

  /// For a person, in three digits and a unit: `1 ns`, `2.5 ms`, `30.0 s`. The language writes `1e-09 seconds`.
  package var inUnits: String {
    var (value, unit) = (Double(nanosecondsRoundedDown), "ns")
    for next in ["µs", "ms", "s"] where value >= 1000 {
      value /= 1000
      unit = next
    }
    if unit == "ns" || value >= 100 { return "\(Int(value.rounded())) \(unit)" }
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) \(unit)"
  }

  /// Itself, but no less than nothing and no more than a century: what is made of it, by sums and doubling, does not overflow.
  package var bounded: Duration { min(max(self, .zero), .seconds(36_525 * 86_400)) }
}

extension UInt64 {
  func addingSaturating(_ other: UInt64) -> UInt64 {
    let (sum, overflow) = addingReportingOverflow(other)
    return overflow ? .max : sum
  }
}
