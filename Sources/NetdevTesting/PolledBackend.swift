internal import Glibc
public import LibeventConcurrency

/// A loop's backend for a ``HandTurnedLoop``: descriptors are looked at one by one when it is polled, timers never fire and the clock stands,
/// so that nothing depends on how long anything takes.
public final class PolledBackend: LoopBackend {
  private var sources: [PolledSource] = []

  /// Nothing watched yet.
  public init() {}

  /// The one time there is.
  public var now: UInt64 { 0 }

  /// Fires what is ready now.
  public func poll() {
    for source in sources { source.fireIfReady() }
    sources.removeAll { $0.isCancelled }
  }

  /// Returns at once.
  public func wait() {}
  /// Nobody waits.
  public func wake() {}

  /// A source that fires when it is found to be ready.
  public func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent {
    let source = PolledSource(descriptor, readiness == .readable ? Int16(POLLIN) : Int16(POLLOUT), handler)
    sources.append(source)
    return source
  }

  /// A timer that never fires.
  public func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent { SilentTimer() }
}

private final class PolledSource: LoopBackendEvent {
  private let descriptor: CInt
  private let events: Int16
  private var handler: (() -> Void)?
  private var isArmed = false

  init(_ descriptor: CInt, _ events: Int16, _ handler: @escaping () -> Void) {
    self.descriptor = descriptor
    self.events = events
    self.handler = handler
  }

  var isCancelled: Bool { handler == nil }

  func fireIfReady() {
    guard isArmed, let handler else { return }
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    if unsafe Glibc.poll(&entry, 1, 0) > 0 { handler() }
  }

  func arm(afterNanoseconds: UInt64) { isArmed = true }
  func disarm() { isArmed = false }
  func cancel() { handler = nil }
}

private final class SilentTimer: LoopBackendEvent {
  func arm(afterNanoseconds: UInt64) {}
  func disarm() {}
  func cancel() {}
}
