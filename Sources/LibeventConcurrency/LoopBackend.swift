/// Clock, waiting and sources of a loop, behind one seam.
///
/// `LibeventBackend` is the real one: an event base, the monotonic clock and the descriptors of this process. A simulated
/// one counts its own time and fires sources by a seed; the loop above it cannot tell the difference. Apart from `wake`,
/// everything is called on the loop's thread.
public protocol LoopBackend: AnyObject {
  /// Nanoseconds of a clock that never goes back.
  var now: UInt64 { get }
  /// Fires what is ready, without waiting.
  func poll()
  /// Waits until a source or timer has fired or `wake` was called.
  func wait()
  /// Ends a `wait`, the present one or the next. Callable from any thread, and harmless after `close`.
  func wake()
  /// Watches a descriptor. The handler runs on the loop each time the descriptor is ready (level-triggered).
  ///
  /// - Throws: `LoopError` when the system refuses.
  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent
  /// Makes a timer that is not yet scheduled.
  ///
  /// - Throws: `LoopError` when the system refuses.
  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent
  /// Times that a source was not taken by the system and had to be looked at by a timer instead.
  var refusedWatches: UInt64 { get }
  /// Times that the system did not set the timer that ends a sleep, so that a coarse one had to.
  var refusedTimers: UInt64 { get }
  /// Gives back what the backend has of the system. Called once, when every event has been cancelled and before the loop's
  /// thread ends; only `wake` may be called after it.
  func close()
}

extension LoopBackend {
  /// Nothing is refused.
  public var refusedWatches: UInt64 { 0 }
  /// Nothing is refused.
  public var refusedTimers: UInt64 { 0 }
  /// Nothing to give back.
  public func close() {}
}

/// A source or timer as the backend holds it. Called on the loop's thread only; released on any, after `cancel`.
public protocol LoopBackendEvent: AnyObject {
  /// Starts watching; for a timer, fires once after so many nanoseconds.
  func arm(afterNanoseconds: UInt64)
  /// Stops watching until armed again.
  func disarm()
  /// Ends it for good: the handler never runs again and is released.
  func cancel()
}

/// The backend of a loop. It cannot be copied, so that a turn borrows it where it is and retains nothing.
struct HeldBackend: ~Copyable {
  private let backend: any LoopBackend

  init(_ backend: any LoopBackend) { self.backend = backend }

  var now: UInt64 { backend.now }
  var refusedWatches: UInt64 { backend.refusedWatches }
  var refusedTimers: UInt64 { backend.refusedTimers }
  borrowing func poll() { backend.poll() }
  borrowing func wait() { backend.wait() }
  borrowing func wake() { backend.wake() }
  borrowing func close() { backend.close() }
  borrowing func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent {
    try backend.makeSource(descriptor: descriptor, readiness: readiness, handler: handler)
  }
  borrowing func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    try backend.makeTimer(handler: handler)
  }
}
