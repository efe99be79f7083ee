import CLibevent
internal import CNetdevSystem

/// A loop on libevent: one event base, used by one thread, woken from others by an eventfd.
///
/// libevent's own locking stays off: the base is touched on the loop's thread only, and `wake` is a write to the eventfd.
@safe final class LibeventBackend: LoopBackend {
  private let base: OpaquePointer
  private let wakeDescriptor: CInt
  private var wakeEvent: LibeventEvent?

  init() throws(LoopError) {
    guard let base = unsafe event_base_new() else { throw LoopError(.noEventBase, "event_base_new") }
    let descriptor = netdev_eventfd_create()
    guard descriptor >= 0 else {
      unsafe event_base_free(base)
      throw LoopError(.system, "eventfd", errno: -descriptor)
    }
    unsafe self.base = base
    self.wakeDescriptor = descriptor
    do {
      let event = try unsafe LibeventEvent(base: base, descriptor: descriptor, flags: Int16(EV_READ | EV_PERSIST)) {
        _ = netdev_eventfd_drain(descriptor)
      }
      event.arm(afterNanoseconds: 0)
      self.wakeEvent = event
    } catch {
      unsafe event_base_free(base)
      netdev_close(descriptor)
      throw error
    }
  }

  deinit {
    wakeEvent?.cancel()
    unsafe event_base_free(base)
    netdev_close(wakeDescriptor)
  }

  var now: UInt64 { netdev_monotonic_nanoseconds() }

  func poll() {
    // Once: without it libevent goes on for as long as a descriptor is ready, and a handler that leaves the work to the
    // loop's turn would never see that turn.
    _ = unsafe event_base_loop(base, EVLOOP_NONBLOCK | EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY)
  }

  func wait() {
    _ = unsafe event_base_loop(base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY)
  }

  func wake() {
    _ = netdev_eventfd_signal(wakeDescriptor)
  }

  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent {
    let flags = Int16(readiness == .readable ? EV_READ : EV_WRITE) | Int16(EV_PERSIST)
    return try unsafe LibeventEvent(base: base, descriptor: descriptor, flags: flags, handler: handler)
  }

  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    try unsafe LibeventEvent(base: base, descriptor: -1, flags: 0, handler: handler)
  }
}

/// One `struct event`. While it lives, libevent holds an unretained pointer to it; `cancel` frees the event first.
@safe private final class LibeventEvent: LoopBackendEvent {
  private var event: OpaquePointer?
  private let isTimer: Bool
  private var handler: (() -> Void)?

  init(base: OpaquePointer, descriptor: CInt, flags: Int16, handler: @escaping () -> Void) throws(LoopError) {
    self.handler = handler
    self.isTimer = descriptor < 0
    unsafe self.event = nil
    let created = unsafe event_new(
      base, descriptor, flags,
      { _, _, context in
        // The context is the object that owns this event; it frees the event before it goes.
        guard let context = unsafe context else { return }
        let owner = unsafe Unmanaged<LibeventEvent>.fromOpaque(context).takeUnretainedValue()
        owner.handler?()
      }, Unmanaged.passUnretained(self).toOpaque())
    guard let created = unsafe created else { throw LoopError(.noEventBase, "event_new") }
    unsafe self.event = created
  }

  deinit { cancel() }

  func arm(afterNanoseconds delay: UInt64) {
    guard let event = unsafe event else { return }
    guard isTimer else {
      _ = unsafe event_add(event, nil)
      return
    }
    // Rounded up to a microsecond: a timer never fires early.
    let microseconds = delay / 1000 + (delay % 1000 == 0 ? 0 : 1)
    var time = timeval(
      tv_sec: time_t(clamping: microseconds / 1_000_000), tv_usec: suseconds_t(microseconds % 1_000_000))
    _ = unsafe event_add(event, &time)
  }

  func disarm() {
    guard let event = unsafe event else { return }
    _ = unsafe event_del(event)
  }

  func cancel() {
    guard let event = unsafe event else { return }
    unsafe event_free(event)
    unsafe self.event = nil
    handler = nil
  }
}
