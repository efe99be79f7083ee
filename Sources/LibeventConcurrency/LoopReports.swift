/// Whom a loop tells of what goes wrong with it: for a log. All are called on the loop, and must not block.
public struct LoopReports: Sendable {
  /// After a turn whose jobs held the loop longer than the stall bound, with its length.
  public var onStall: (@Sendable (Duration) -> Void)?
  /// At most every ten seconds while the loop turns and does nothing, with the number of such turns.
  public var onSpin: (@Sendable (UInt64) -> Void)?
  /// Once for each thing that the system refuses the loop.
  public var onShortage: (@Sendable (LoopShortage) -> Void)?

  /// Nobody is told.
  public init() {}
}

/// What a loop has to do without, because the system refuses it. It goes on, and is slower.
public enum LoopShortage: Sendable, Hashable {
  /// Descriptors are looked at by a timer (`LoopStatistics.refusedWatches`).
  case watches
  /// Timers are late by some milliseconds (`LoopStatistics.refusedTimers`).
  case timers
}
