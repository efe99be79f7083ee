internal import LibeventConcurrency
internal import Synchronization

/// The time of a loop that is turned by hand, and when its first timer is due.
final class ManualTime: Sendable {
  private let value = Atomic<UInt64>(0)
  private let first = Atomic<UInt64>(.max)

  var now: UInt64 {
    get { value.load(ordering: .acquiring) }
    set { value.store(newValue, ordering: .releasing) }
  }

  var earliest: UInt64? {
    get {
      let time = first.load(ordering: .acquiring)
      return time == .max ? nil : time
    }
    set { first.store(newValue ?? .max, ordering: .releasing) }
  }
}

/// Timers by a manual clock, and sources that are never ready.
final class ManualBackend: LoopBackend {
  private final class Timer: LoopBackendEvent {
    private unowned let backend: ManualBackend
    var deadline: UInt64?
    var handler: (() -> Void)?

    init(_ backend: ManualBackend, _ handler: @escaping () -> Void) {
      self.backend = backend
      self.handler = handler
    }

    func arm(afterNanoseconds delay: UInt64) {
      let (sum, overflow) = backend.now.addingReportingOverflow(delay)
      deadline = overflow ? nil : sum
      backend.note()
    }

    func disarm() {
      deadline = nil
      backend.note()
    }

    func cancel() {
      handler = nil
      deadline = nil
      backend.forget(self)
    }
  }

  private final class NeverReady: LoopBackendEvent {
    func arm(afterNanoseconds: UInt64) {}
    func disarm() {}
    func cancel() {}
  }

  private let time: ManualTime
  private var timers: [Timer] = []

  init(_ time: ManualTime) { self.time = time }

  var now: UInt64 { time.now }

  /// Fires what is due, the earliest first; what handlers set is for the next look.
  func poll() {
    let due = timers.filter { $0.deadline.map { $0 <= now } ?? false }
    for timer in due.sorted(by: { ($0.deadline ?? 0) < ($1.deadline ?? 0) }) where timer.deadline != nil {
      timer.deadline = nil
      timer.handler?()
    }
    note()
  }

  func wait() {}
  func wake() {}

  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent { NeverReady() }

  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    let timer = Timer(self, handler)
    timers.append(timer)
    return timer
  }

  func note() { time.earliest = timers.compactMap { $0.deadline }.min() }

  private func forget(_ timer: Timer) {
    timers.removeAll { $0 === timer }
    note()
  }
}
