import CLibevent
internal import CNetdevSystem

/// A loop on libevent: one event base, used by one thread, woken from others by an eventfd.
///
/// libevent's own locking stays off: the base is touched on the loop's thread only, and `wake` is a write to the eventfd.
/// Timers are ours, because libevent's fire up to a tick early or late, and its precise ones cost a system call at every
/// dispatch: one timerfd for all of them, set before a sleep when it does not say the earliest deadline. A loop that does not
/// sleep reads the clock instead.
@safe final class LibeventBackend: LoopBackend {
  // Every property has a value before anything can be refused, so that `close` ends what there is, whatever was refused.
  private var base: OpaquePointer?
  private var wakeDescriptor: CInt = -1
  private var timerDescriptor: CInt = -1
  private var sources: [LibeventSource] = []
  private let timers = TimerQueue()
  /// What the timerfd is set to; 0 when it is not.
  private var timerDeadline: UInt64 = 0
  /// The timerfd has fired: it is readable until it is set anew.
  private var timerHasFired = false
  private(set) var refusedWatches: UInt64 = 0

  init() throws(LoopError) {
    unsafe base = nil
    do throws(LoopError) {
      try open()
    } catch {
      close()
      throw error
    }
  }

  private func open() throws(LoopError) {
    unsafe base = try Self.makeBase()
    wakeDescriptor = try Self.checked(netdev_eventfd_create(), "eventfd")
    timerDescriptor = try Self.checked(netdev_timerfd_create(), "timerfd_create")
    // Neither handler retains the backend, which holds them.
    let descriptor = wakeDescriptor
    try watch(descriptor) { _ = netdev_eventfd_drain(descriptor) }
    try watch(timerDescriptor) { [unowned self] in timerHasFired = true }
  }

  /// What libevent opens for a base: an epoll descriptor, the two ends of a pipe for signals, and one to spare.
  private static let descriptorsOfBase: CInt = 4

  private static func makeBase() throws(LoopError) -> OpaquePointer {
    // libevent ends the process when it cannot have its pipe.
    var reserve = netdev_reserve()
    let refusal = unsafe netdev_reserve_begin(&reserve, descriptorsOfBase)
    guard refusal == 0 else { throw LoopError(.system, "opening descriptors for libevent", errno: -refusal) }
    defer { unsafe netdev_reserve_end(&reserve) }
    guard let base = unsafe event_base_new() else { throw LoopError(.noEventBase, "event_base_new") }
    return unsafe base
  }

  private static func checked(_ descriptor: CInt, _ operation: String) throws(LoopError) -> CInt {
    guard descriptor >= 0 else { throw LoopError(.system, operation, errno: -descriptor) }
    return descriptor
  }

  /// One of the loop's own descriptors, without which there is no loop.
  private func watch(_ descriptor: CInt, handler: @escaping () -> Void) throws(LoopError) {
    let source = try makeLibeventSource(descriptor, .readable, handler)
    sources.append(source)
    guard source.watch() else { throw LoopError(.noEventBase, "event_add") }
  }

  func close() {
    for source in sources { source.cancel() }
    sources = []
    if let base = unsafe base { unsafe event_base_free(base) }
    unsafe base = nil
    if timerDescriptor >= 0 { netdev_close(timerDescriptor) }
    timerDescriptor = -1
  }

  deinit {
    unsafe assert(base == nil, "a loop is closed before it goes")
    // Only here: whoever can still call `wake` holds this object.
    if wakeDescriptor >= 0 { netdev_close(wakeDescriptor) }
  }

  var now: UInt64 { netdev_monotonic_nanoseconds() }

  func poll() {
    // Once: without it libevent goes on for as long as a descriptor is ready, and a handler that leaves the work to the
    // loop's turn would never see that turn.
    dispatch(EVLOOP_NONBLOCK | EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY)
    if timerHasFired { setTimer() }
  }

  func wait() {
    if timerHasFired || timerDeadline != timers.earliest ?? 0 { setTimer() }
    dispatch(EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY)
  }

  private func dispatch(_ flags: CInt) {
    guard let base = unsafe base else { return }
    _ = unsafe event_base_loop(base, flags)
    if timers.earliest != nil { timers.fire(now: now) }
  }

  /// Sets the timerfd to the earliest deadline; that it has fired is forgotten.
  private func setTimer() {
    timerDeadline = timers.earliest ?? 0
    timerHasFired = false
    _ = netdev_timerfd_set(timerDescriptor, timerDeadline)
  }

  func wake() { _ = netdev_eventfd_signal(wakeDescriptor) }

  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent {
    try makeLibeventSource(descriptor, readiness, handler)
  }

  private func makeLibeventSource(
    _ descriptor: CInt, _ readiness: LoopSource.Readiness, _ handler: @escaping () -> Void
  ) throws(LoopError) -> LibeventSource {
    guard let base = unsafe base else { throw LoopError(.noEventBase, "event_new") }
    return try unsafe LibeventSource(
      base: base, descriptor: descriptor, readiness: readiness, timers: timers,
      onRefusal: { [unowned self] in refusedWatches += 1 }, handler: handler)
  }

  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    QueuedTimer(queue: timers, handler: handler)
  }
}
