public import LibeventConcurrency

/// A loop's backend in which nothing is ever ready and it is always the same time: what happens is brought about by jobs and
/// wake-ups alone, however slow the machine is. It notes what timers are set to.
public final class StillBackend: LoopBackend {
  private final class Event: LoopBackendEvent {
    private let onArm: (UInt64) -> Void
    init(onArm: @escaping (UInt64) -> Void) { self.onArm = onArm }
    func arm(afterNanoseconds: UInt64) { onArm(afterNanoseconds) }
    func disarm() {}
    func cancel() {}
  }

  /// What timers were set to, in nanoseconds and in order.
  public private(set) var delays: [UInt64] = []

  /// Nothing noted yet.
  public init() {}

  /// The one time there is.
  public var now: UInt64 { 1 }
  /// Nothing fires.
  public func poll() {}
  /// Returns at once.
  public func wait() {}
  /// Nobody waits.
  public func wake() {}
  /// A source that is never ready.
  public func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent { Event { _ in } }
  /// A timer that never fires.
  public func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    Event { [weak self] in self?.delays.append($0) }
  }
}
