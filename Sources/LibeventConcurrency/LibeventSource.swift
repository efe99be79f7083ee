import CLibevent
internal import CNetdevSystem

/// One `struct event` of a descriptor. libevent holds an unretained pointer to this object while the event exists; `cancel`,
/// on the loop, ends it first.
@safe final class LibeventSource: LoopBackendEvent {
  /// How long a source waits that the system does not watch: doubled from the first to the last with each vain look.
  private static let pauses: (first: UInt64, last: UInt64) = (1_000_000, 64_000_000)

  private static let looksBetweenRequests = 8

  private let descriptor: CInt
  private let readiness: LoopSource.Readiness
  private var event: OpaquePointer?
  // Touched on the loop only, and no access spans a call.
  @safe @exclusivity(unchecked) private var handler: (() -> Void)?
  private let onRefusal: () -> Void
  private let timers: TimerQueue
  /// Looks at the descriptor while the system does not watch it.
  private var look: QueuedTimer?
  private var pause = LibeventSource.pauses.first
  private var looks = 0

  /// - Parameter onRefusal: called each time the system does not take the descriptor.
  init(
    base: OpaquePointer, descriptor: CInt, readiness: LoopSource.Readiness, timers: TimerQueue,
    onRefusal: @escaping () -> Void, handler: @escaping () -> Void
  ) throws(LoopError) {
    self.descriptor = descriptor
    self.readiness = readiness
    self.timers = timers
    self.onRefusal = onRefusal
    self.handler = handler
    unsafe event = nil
    let flags = Int16(readiness == .readable ? EV_READ : EV_WRITE) | Int16(EV_PERSIST)
    let created = unsafe event_new(
      base, descriptor, flags,
      { _, _, context in
        guard let context = unsafe context else { return }
        // Taken out, and not called in there: it may end the source.
        let handler = unsafe Unmanaged<LibeventSource>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.handler }
        handler?()
      }, Unmanaged.passUnretained(self).toOpaque())
    guard let created = unsafe created else { throw LoopError(.noEventBase, "event_new") }
    unsafe event = created
  }

  deinit { unsafe assert(event == nil, "a source ends on its loop") }

  /// Watches, and says whether the system does.
  func watch() -> Bool {
    guard let event = unsafe event else { return true }
    return unsafe event_add(event, nil) == 0
  }

  func arm(afterNanoseconds: UInt64) {
    guard handler != nil, look == nil, !watch() else { return }
    onRefusal()
    let look = QueuedTimer(queue: timers) { [unowned self] in lookAgain() }
    self.look = look
    look.arm(afterNanoseconds: pause)
  }

  func disarm() {
    endLooking()
    if let event = unsafe event { _ = unsafe event_del(event) }
  }

  func cancel() {
    endLooking()
    if let event = unsafe event { unsafe event_free(event) }
    unsafe event = nil
    handler = nil
  }

  /// The system did not take the descriptor: now and then it is asked again (libevent writes a line about each refusal). In
  /// between, this is the look that nobody else takes.
  private func lookAgain() {
    looks += 1
    if looks.isMultiple(of: Self.looksBetweenRequests) {
      if watch() { return endLooking() }
      onRefusal()
    }
    pause = min(2 * pause, Self.pauses.last)
    look?.arm(afterNanoseconds: pause)
    if netdev_descriptor_is_ready(descriptor, readiness == .writable) {
      pause = Self.pauses.first
      handler?()
    }
  }

  private func endLooking() {
    look?.cancel()
    look = nil
    pause = Self.pauses.first
  }
}
