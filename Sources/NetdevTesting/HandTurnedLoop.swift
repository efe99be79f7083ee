internal import CNetdevSystem
internal import Glibc
public import LibeventConcurrency
public import Netdev
internal import Synchronization

/// A loop that a test turns: nothing happens by itself, and no time passes but what the test lets pass.
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
///
/// A test of what lives *on* a loop, such as a back-end's port, brings a backend of its own, which may watch descriptors
/// (``PolledBackend``, ``withEvents(name:)``): it is looked at when the test says so, by ``poll()``, and the test is at home on the loop
/// between the turns (``arrive()``).
@safe public final class HandTurnedLoop: Sendable {
  /// The loop. It belongs to whoever turns it: to one thread at a time, which this sees to.
  public let loop: LoopExecutor
  private let backend: Reference
  /// The clock, where it is the test's.
  private let time: ManualTime?
  private let turning = Mutex<Void>(())
  private let isAtHome = Atomic<Bool>(false)

  /// A loop whose clock begins at zero, and goes on by ``advance(by:)``.
  public init(name: String = "by hand") {
    let time = ManualTime()
    let backend = ManualBackend(time)
    self.time = time
    self.backend = Reference(backend: backend)
    loop = LoopExecutor(name: name, backend: backend)
  }

  /// A loop with a backend, and by a clock, of the test's own. The calling thread is at home on it: see ``arrive()``.
  public init(name: String = "by hand", backend: any LoopBackend) {
    time = nil
    self.backend = Reference(backend: backend)
    loop = LoopExecutor(name: name, backend: backend)
    arrive()
  }

  /// A loop whose descriptors and timers are a real event base's. The calling thread is at home on it.
  ///
  /// - Throws: `LoopError` when there is no descriptor left for it.
  public static func withEvents(name: String = "by hand") throws(LoopError) -> HandTurnedLoop {
    HandTurnedLoop(name: name, backend: try LoopExecutor.makeBackend())
  }

  /// Where a thread is at home, takes what others still bring to the loop: calls that wait for a turn that never comes would keep it.
  deinit {
    guard isAtHome.load(ordering: .acquiring) else { return }
    while BlockingCalls.areUnderWay { usleep(1000) }
    settle()
    netdev_set_current_loop(nil)
  }

  /// How to open devices on this loop: their queues and their control plane live on it.
  public var configuration: NetworkDevice.Configuration {
    var configuration = NetworkDevice.Configuration()
    configuration.loops = [loop]
    configuration.controlLoop = loop
    return configuration
  }

  /// What the clock shows.
  public var now: Duration { .nanoseconds(Int64(clamping: time?.now ?? loop.now)) }

  /// The calling thread is at home on the loop, as the loop's own code is, until it turns it no more; the thread that was must not
  /// turn it meanwhile. For tests that do not suspend: a task may go on on another thread, which is not at home.
  public func arrive() {
    isAtHome.store(true, ordering: .releasing)
    unsafe netdev_set_current_loop(UnsafeMutableRawPointer(bitPattern: loop.identity))
  }

  /// One turn; by a clock of the test's with the timers that are due. Not from a turn of this loop.
  ///
  /// - Returns: true when there is reason for another.
  @discardableResult public func turn() -> Bool {
    turning.withLock { _ in
      if time != nil { loop.execute { [backend] in backend.backend.poll() } }
      defer { if isAtHome.load(ordering: .acquiring) { arrive() } }
      return loop.turnOnce()
    }
  }

  /// Turns until the loop would sleep, or so often.
  ///
  /// - Returns: how often.
  @discardableResult public func settle(limit: Int = 10_000) -> Int {
    var turns = 1
    // One look more than the loop asks for: the call that looks at the timers is a reason to turn by itself.
    let least = time == nil ? 1 : 3
    while turn() || turns < least, turns < limit { turns += 1 }
    return turns
  }

  /// Fires what is ready, and settles. Not from a turn of this loop.
  public func poll() {
    turning.withLock { _ in
      if isAtHome.load(ordering: .acquiring) {
        backend.backend.poll()
      } else {
        loop.execute { [backend] in backend.backend.poll() }
      }
    }
    settle()
  }

  /// Polls until `condition` holds, which may take real time: for what others, such as the kernel, have to do with it.
  ///
  /// - Returns: false when it did not come to hold within `limit`.
  public func wait(within limit: Duration = .seconds(5), until condition: () -> Bool) -> Bool {
    let end = ContinuousClock.now + limit
    while true {
      poll()
      if condition() { return true }
      if ContinuousClock.now > end { return false }
      usleep(200)
    }
  }

  /// Lets time pass: from one timer to the next that is due, with what comes of each, up to the end of the duration. On a backend of the
  /// test's own, whose time is not this loop's to move, it settles.
  public func advance(by duration: Duration) {
    settle()
    guard let time else { return }
    let end = LoopClock.Instant(nanoseconds: time.now).advanced(by: duration).nanoseconds
    while let next = time.earliest, next <= end {
      time.now = max(next, time.now)
      settle()
    }
    time.now = max(end, time.now)
    settle()
  }

  /// Runs `body` as a task of its own, and turns the loop until that has ended: for what is asynchronous and needs the loop, such as
  /// opening a device. Time does not pass. Not on a thread that is at home: it suspends.
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
    // Proof of Sendable: used in turns of the loop, and by the thread at home between them, which `turning` makes one at a time.
    let backend: any LoopBackend
  }
}
