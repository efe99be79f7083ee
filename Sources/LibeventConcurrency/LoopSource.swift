/// A descriptor watched by a loop: the handler runs on the loop's thread whenever it is ready.
///
/// Made, resumed and suspended on the loop; elsewhere these calls do nothing. Level-triggered: a handler that leaves the
/// descriptor ready runs again. When the system will not watch it (a limit is reached), the loop looks at it by a timer until
/// it will, which `LoopStatistics.refusedWatches` counts: a source is slow then, and never deaf. A descriptor is
/// closed when its source has ended on the loop, and not before.
public final class LoopSource {
  /// What to watch for.
  public enum Readiness: Sendable, Hashable {
    /// The descriptor can be read.
    case readable
    /// The descriptor can be written.
    case writable
  }

  private let handle: LoopEventHandle

  init(_ handle: LoopEventHandle) { self.handle = handle }

  deinit { handle.cancel() }

  /// Starts watching (a new source is suspended).
  public func resume() {
    guard handle.isHere else { return }
    handle.event.arm(afterNanoseconds: 0)
  }

  /// Stops watching until resumed.
  public func suspend() {
    guard handle.isHere else { return }
    handle.event.disarm()
  }

  /// Ends it: after this call the handler does not run again. From elsewhere than the loop it ends in the loop's next turn.
  public func cancel() { handle.cancel() }
}
