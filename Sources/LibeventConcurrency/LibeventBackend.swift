import CLibevent
internal import CNetdevSystem

/// A loop on libevent: one event base, used by one thread, woken from others by an eventfd.
///
/// libevent's own locking stays off: the base is touched on the loop's thread only, and `wake` is a write to the eventfd.
/// Timers are ours, because libevent's fire up to a tick early or late, and its precise ones cost a system call at every
/// dispatch: one timerfd for all of them, set before a sleep when it does not say the earliest deadline. A loop that does not
/// sleep reads the clock instead. Where the system does not set the timerfd, libevent's timer stands in for it.
@safe final class LibeventBackend: LoopBackend {
  // Every property has a value before anything can be refused, so that `close` ends what there is, whatever was refused. What a sleep
  // looks at is touched on the loop only, and no access spans a call.
  @exclusivity(unchecked) private var base: OpaquePointer?
  private var wakeDescriptor: CInt = -1
  private var timerDescriptor: CInt = -1
  private var sources: [LibeventSource] = []
  private let timers = TimerQueue()
  /// What the timerfd is set to; 0 when it is not.
  @safe @exclusivity(unchecked) private var timerDeadline: UInt64 = 0
  /// The timerfd, or libevent's timer, has fired: the one is readable until it is set anew, the other must be armed anew.
  @safe @exclusivity(unchecked) private var timerHasFired = false
  private var timerSource: LibeventSource?
  /// Ends a sleep when the timerfd cannot be set: late by a tick or two, and never early, because the clock is read then.
  private var coarseTimer: OpaquePointer?
  /// It is armed, and the timerfd is not watched.
  private var isCoarse = false
  private(set) var refusedWatches: UInt64 = 0
  private(set) var refusedTimers: UInt64 = 0

  init() throws(LoopError) {
    unsafe base = nil
    unsafe coarseTimer = nil
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
    _ = try watch(descriptor) { if netdev_eventfd_drain(descriptor) > 0 { LoopCore.noteWakeUp() } }
    timerSource = try watch(timerDescriptor) { [unowned self] in timerHasFired = true }
    try makeCoarseTimer()
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
  private func watch(_ descriptor: CInt, handler: @escaping () -> Void) throws(LoopError) -> LibeventSource {
    let source = try makeLibeventSource(descriptor, .readable, handler)
    sources.append(source)
    guard source.watch() else { throw LoopError(.noEventBase, "event_add") }
    return source
  }

  /// Made with the loop, so that it can be had when it is wanted.
  private func makeCoarseTimer() throws(LoopError) {
    guard let base = unsafe base else { return }
    let made = unsafe event_new(
      base, -1, 0,
      { _, _, context in
        guard let context = unsafe context else { return }
        // The backend frees the event before it goes.
        unsafe Unmanaged<LibeventBackend>.fromOpaque(context).takeUnretainedValue().timerHasFired = true
      }, Unmanaged.passUnretained(self).toOpaque())
    guard let made = unsafe made else { throw LoopError(.noEventBase, "event_new") }
    unsafe coarseTimer = made
  }

  func close() {
    for source in sources { source.cancel() }
    sources = []
    timerSource = nil
    if let timer = unsafe coarseTimer { unsafe event_free(timer) }
    unsafe coarseTimer = nil
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
    if netdev_timerfd_set(timerDescriptor, timerDeadline) == 0 {
      if isCoarse { endCoarseTime() }
    } else {
      refusedTimers += 1
      setCoarseTimer()
    }
  }

  /// As `setTimer`, where the system has refused that. The timerfd may say that it has fired, for ever: it is not watched.
  private func setCoarseTimer() {
    timerSource?.disarm()
    isCoarse = true
    guard let timer = unsafe coarseTimer else { return }
    guard timerDeadline > 0 else { return unsafe _ = event_del(timer) }
    // At least a millisecond: libevent's clock stands still within a tick.
    let present = now
    let rest = max(timerDeadline > present ? timerDeadline - present : 0, 1_000_000)
    var interval = timeval(tv_sec: Int(rest / 1_000_000_000), tv_usec: Int(rest % 1_000_000_000 / 1000))
    _ = unsafe event_add(timer, &interval)
  }

  private func endCoarseTime() {
    isCoarse = false
    if let timer = unsafe coarseTimer { _ = unsafe event_del(timer) }
    timerSource?.arm(afterNanoseconds: 0)
  }

  func wake() {
    #if Testing
    // Whoever wakes a loop may have a lock: of those who want it nobody comes between.
    netdev_fault_forbid_places(true)
    defer { netdev_fault_forbid_places(false) }
    #endif
    _ = netdev_eventfd_signal(wakeDescriptor)
  }

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

extension LoopExecutor {
  /// A backend of libevent's for a loop that somebody turns by hand.
  package static func makeBackend() throws(LoopError) -> any LoopBackend { try LibeventBackend() }
}
