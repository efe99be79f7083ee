/// What a loop has done since it was made. Every number only grows.
public struct LoopStatistics: Sendable, Hashable {
  /// Turns, the sleeps between them not counted.
  public internal(set) var turns: UInt64 = 0
  /// Jobs run.
  public internal(set) var jobs: UInt64 = 0
  /// Times the loop went to sleep.
  public internal(set) var sleeps: UInt64 = 0
  /// Turns whose jobs held the loop longer than the stall bound.
  public internal(set) var stalls: UInt64 = 0
  /// Turns in which nothing was done, as in the turn before: one look after the last work is due, more are a spin. A signal of an
  /// eventfd that was taken, and a timer that fired, are work, and a wake-up late for its job is nothing: these turns do not
  /// grow with the traffic.
  public internal(set) var idleTurns: UInt64 = 0
  /// Times that the system refused to watch a descriptor, so that a timer looked at it.
  public internal(set) var refusedWatches: UInt64 = 0
  /// Times that the system refused to set the loop's timer, so that a coarse one woke it, some milliseconds late.
  public internal(set) var refusedTimers: UInt64 = 0
}

/// Tells a loop that spins from one that works: a turn is idle when nothing was done in it, nor in the one before.
///
/// After work a loop looks once more before it sleeps, and now and then it is woken for nothing; a loop that turns thousands
/// of times in a second without doing anything burns its CPU, and nobody would see it.
struct LoopIdleness {
  /// So many idle turns within `window` are worth a word.
  static let runaway: UInt64 = 10_000
  /// Nanoseconds.
  static let window: UInt64 = 1_000_000_000
  /// Nanoseconds from one word to the next.
  static let silence: UInt64 = 10_000_000_000

  private var isLastIdle = false
  /// Idle turns since `began`, the first of a window.
  private var count: UInt64 = 0
  private var began: UInt64 = 0
  private var reported: UInt64?

  /// True when the turn counts as idle.
  mutating func note(isIdle: Bool, at now: UInt64) -> Bool {
    guard isIdle else {
      isLastIdle = false
      return false
    }
    defer { isLastIdle = true }
    guard isLastIdle else { return false }
    if count == 0 || now &- began > Self.window {
      count = 0
      began = now
    }
    count += 1
    return true
  }

  /// Idle turns in the present window, when they are too many and nobody was told of late.
  mutating func report(at now: UInt64) -> UInt64? {
    guard count >= Self.runaway else { return nil }
    if let reported, now &- reported < Self.silence { return nil }
    reported = now
    return count
  }
}
