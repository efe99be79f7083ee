public import LibeventConcurrency
public import Netdev
internal import Synchronization

/// A loop that a test turns, by a clock that goes on when the test says so: nothing happens by itself.
///
/// ```swift
/// let hand = HandTurnedLoop()
/// let device = try await hand.run { try await NetworkDevice.open(driver: driver, configuration: hand.configuration) }
/// let server = Task { try await device.run(serve) }
/// hand.settle()                       // until the loop would sleep
/// hand.advance(by: .seconds(60))      // fires what is due by then
/// ```
///
/// For code that is about time or about what is done in which turn, and needs no seed: `Simulation` has every order of events, this has
/// the one that the test's lines have. Devices of this process and drivers of a test's own work on it; what needs descriptors to be
/// watched does not.
public final class HandTurnedLoop: Sendable {
  /// The loop. It belongs to whoever turns it: to one thread at a time, which this sees to.
  public let loop: LoopExecutor
  private let backend: Reference
  private let time: ManualTime
  private let turning = Mutex<Void>(())

  /// A loop whose clock begins at zero.
  public init(name: String = "by hand") {
    time = ManualTime()
    let backend = ManualBackend(time)
    self.backend = Reference(backend: backend)
    loop = LoopExecutor(name: name, backend: backend)
  }

  /// How to open devices on this loop: their queues and their control plane live on it.
  public var configuration: NetworkDevice.Configuration {
    var configuration = NetworkDevice.Configuration()
    configuration.loops = [loop]
    configuration.controlLoop = loop
    return configuration
  }

  /// What the clock shows.
  public var now: Duration { .nanoseconds(Int64(clamping: time.now)) }

  /// One turn, with the timers that are due. Not from a turn of this loop.
  ///
  /// - Returns: true when there is reason for another.
  @discardableResult public func turn() -> Bool {
    turning.withLock { _ in
      loop.execute { [backend] in backend.backend.poll() }
      return loop.turnOnce()
    }
  }

  /// Turns until the loop would sleep, or so often.
  ///
  /// - Returns: how often.
  @discardableResult public func settle(limit: Int = 10_000) -> Int {
    var turns = 1
    // One look more than the loop asks for: the call that looks at the timers is a reason to turn by itself.
    while turn() || turns < 3, turns < limit { turns += 1 }
    return turns
  }

  /// Lets time pass: from one timer to the next that is due, with what comes of each, up to the end of the duration.
  public func advance(by duration: Duration) {
    let end = LoopClock.Instant(nanoseconds: time.now).advanced(by: duration).nanoseconds
    settle()
    while let next = time.earliest, next <= end {
      time.now = max(next, time.now)
      settle()
    }
    time.now = max(end, time.now)
    settle()
  }

  /// Runs `body` as a task of its own, and turns the loop until that has ended: for what is asynchronous and needs the loop, such as
  /// opening a device. Time does not pass.
  ///
  /// - Throws: what `body` throws.
  public func run<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
    let isOver = Flag()
    let task = Task.detached {
      defer { isOver.raise() }
      return try await body()
    }
    while !isOver.isRaised {
      settle()
      await Task.yield()
    }
    return try await task.value
  }

  private final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    func raise() { value.store(true, ordering: .releasing) }
    var isRaised: Bool { value.load(ordering: .acquiring) }
  }

  /// The backend, for the loop's own turns.
  private struct Reference: @unchecked Sendable {
    // Proof of Sendable: used in turns of the loop only, which `turning` makes one at a time.
    let backend: ManualBackend
  }
}

/// The time of a loop that is turned by hand, and when its first timer is due.
private final class ManualTime: Sendable {
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
private final class ManualBackend: LoopBackend {
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
