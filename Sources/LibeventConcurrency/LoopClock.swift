internal import CNetdevSystem

/// The clock of a loop: that of the system for a loop on a thread, and a simulated one for a loop of a simulated world.
///
/// Programs that tell the time by it run under a simulation as they run on a machine. Its instants are points of one clock that
/// never goes back; those of loops with threads of their own can be compared with one another.
public struct LoopClock: Clock {
  /// A point in time.
  public struct Instant: InstantProtocol {
    /// Nanoseconds since the clock's beginning, whenever that was.
    public let nanoseconds: UInt64

    /// A point in time by its nanoseconds.
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// A later point, or, with a negative duration, an earlier one; never one before the clock's beginning.
    public func advanced(by duration: Duration) -> Instant {
      guard duration < .zero else {
        return Instant(nanoseconds: nanoseconds.addingSaturating(duration.nanosecondsRoundedUp))
      }
      // The longest time back has no counterpart forward.
      let back = (.zero - max(duration, .seconds(-Int64.max))).nanosecondsRoundedUp
      return Instant(nanoseconds: nanoseconds - min(back, nanoseconds))
    }

    /// How long it is to `other`; negative when that came before.
    public func duration(to other: Instant) -> Duration {
      other.nanoseconds >= nanoseconds
        ? .nanoseconds(Int64(clamping: other.nanoseconds - nanoseconds))
        : .zero - .nanoseconds(Int64(clamping: nanoseconds - other.nanoseconds))
    }

    /// Whether one point came before another.
    public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
  }

  private let loop: LoopExecutor

  /// The clock of a loop.
  public init(_ loop: LoopExecutor) { self.loop = loop }

  /// What time it is. From any thread; of a loop without a thread of its own, elsewhere than on it: when it turned last.
  public var now: Instant { Instant(nanoseconds: loop.time) }

  /// Timers of a loop count nanoseconds, and are a millisecond late at most on a quiet machine.
  public var minimumResolution: Duration { .nanoseconds(1) }

  /// Waits until a point in time, by the loop's timers; from any task.
  ///
  /// Deadline: its own. Cancellation ends it at once; the end of a queue that the clock is asked of does not
  /// (`NetworkQueue.sleep(for:)` is ended by that).
  ///
  /// - Parameters:
  ///   - deadline: when to go on; one that has passed is no wait.
  ///   - tolerance: not used: a loop's timer is as exact as it can be.
  /// - Throws: `CancellationError` when the task is cancelled, which ends the wait at once.
  public func sleep(until deadline: Instant, tolerance: Duration? = nil) async throws {
    guard await loop.sleep(for: now.duration(to: deadline)) else { throw CancellationError() }
  }
}

extension LoopExecutor {
  /// The clock that the loop's timers go by.
  public nonisolated var clock: LoopClock { LoopClock(self) }
}
