internal import CNetdevSystem
internal import Glibc
public import LibeventConcurrency

/// A loop that a fuzzer turns on its own thread, on which it is at home between the turns: the same input takes the same
/// course every time.
///
/// Descriptors are looked at when the fuzzer says so; timers never fire, so that nothing depends on how long anything takes.
public final class HandLoop {
  /// The loop.
  public let loop: LoopExecutor
  private let backend = PolledBackend()

  /// A loop at home on this thread.
  public init() {
    loop = LoopExecutor(name: "fuzz", backend: backend)
    arrive()
  }

  deinit { netdev_set_current_loop(nil) }

  private func arrive() { netdev_set_current_loop(UnsafeMutableRawPointer(bitPattern: loop.identity)) }

  /// Turns until the loop would sleep; false when it has not come to that after `limit` turns.
  @discardableResult public func settle(limit: Int = 10_000) -> Bool {
    defer { arrive() }
    for _ in 0..<limit where !loop.turnOnce() { return true }
    return false
  }

  /// Fires what is ready, then settles.
  public func poll() {
    backend.poll()
    settle()
  }
}

/// Sources of descriptors, looked at one by one; no timers.
private final class PolledBackend: LoopBackend {
  private var sources: [PolledSource] = []

  var now: UInt64 { 0 }

  func poll() {
    for source in sources { source.fireIfReady() }
    sources.removeAll { $0.isCancelled }
  }

  func wait() {}
  func wake() {}

  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent {
    let source = PolledSource(descriptor, readiness == .readable ? Int16(POLLIN) : Int16(POLLOUT), handler)
    sources.append(source)
    return source
  }

  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent { SilentTimer() }
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
    if Glibc.poll(&entry, 1, 0) > 0 { handler() }
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
