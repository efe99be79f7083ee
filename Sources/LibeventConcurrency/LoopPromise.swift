/// One value that comes later, for one task that waits on a loop: until it is there, until a time of the loop's clock is over,
/// or until the task is cancelled, whichever comes first.
///
/// The wait parks at a gate, so that nothing of it leaves the loop; the clock is the loop's, so that a simulated one has no
/// other. Whoever fulfils it may be on any thread.
public actor LoopPromise<Value: Sendable> {
  /// What came of the wait.
  public enum Outcome: Sendable {
    /// The value is there.
    case value(Value)
    /// The time was over first.
    case timedOut
    /// The task was cancelled first.
    case cancelled
  }

  private nonisolated let loop: LoopExecutor
  private let gate = Gate()
  private var outcome: Outcome?

  /// A promise to somebody on this loop.
  public init(loop: LoopExecutor) { self.loop = loop }

  /// The loop's executor.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// True when the wait is over, or will be at once: a value that is given now reaches nobody.
  public var isSettled: Bool { outcome != nil }

  /// Gives the value; later ones, and one whose waiter has gone on, are dropped. From any thread.
  public nonisolated func fulfil(_ value: Value) { settle(.value(value)) }

  /// The value, waited for no longer than `limit` by the loop's clock; nil waits until it comes or the task is cancelled, which
  /// ends the wait at once.
  public func value(within limit: Duration? = nil) async -> Outcome {
    if let outcome { return outcome }
    var timer: LoopTimer?
    if let limit {
      do throws(LoopError) {
        let made = try loop.makeTimer { [weak self] in self?.settle(.timedOut) }
        made.schedule(after: limit)
        timer = made
      } catch {
        // A wait without the end that it was to have is none.
        return .timedOut
      }
    }
    await withTaskCancellationHandler {
      // Through `self`: a closure that does not use it would leave the actor, and the gate belongs to the loop.
      await self.park()
    } onCancel: {
      // In a later turn always: a handler must not let the task go on that is being cancelled under the runtime's lock.
      loop.execute { self.assumeIsolated { $0.note(.cancelled) } }
    }
    timer?.cancel()
    return outcome ?? .cancelled
  }

  private func park() async { if outcome == nil { await gate.pass() } }

  private nonisolated func settle(_ outcome: Outcome) {
    if loop.isOnLoop { return assumeIsolated { $0.note(outcome) } }
    loop.execute { self.assumeIsolated { $0.note(outcome) } }
  }

  private func note(_ outcome: Outcome) {
    guard self.outcome == nil else { return }
    self.outcome = outcome
    gate.open()
  }
}
