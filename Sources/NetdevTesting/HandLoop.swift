internal import CNetdevSystem
internal import Glibc
public import LibeventConcurrency

/// A loop that a test turns by hand on its own thread, on which the test is at home between the turns.
///
/// Nothing happens by itself: what jobs, drivers and devices of the loop do is in the order of the test's lines, and the same lines
/// take the same course. Made, turned and let go on one thread, unless another one arrives.
@safe public final class HandLoop {
  /// The loop.
  public let loop: LoopExecutor
  private let backend: any LoopBackend

  /// Descriptors and timers are a real event base's, which is looked at when the test says so.
  ///
  /// - Throws: `LoopError` when there is no descriptor left for it.
  public convenience init() throws(LoopError) { self.init(backend: try LoopExecutor.makeBackend()) }

  /// On a backend, and by a clock, of the test's own.
  public init(backend: any LoopBackend) {
    self.backend = backend
    loop = LoopExecutor(name: "hand", backend: backend)
    arrive()
  }

  /// Takes what others still bring to the loop: calls that wait for a turn that never comes would keep it.
  deinit {
    while BlockingCalls.areUnderWay { usleep(1000) }
    settle()
    netdev_set_current_loop(nil)
  }

  /// The calling thread turns the loop from here on; the one that did must not meanwhile.
  public func arrive() { unsafe netdev_set_current_loop(UnsafeMutableRawPointer(bitPattern: loop.identity)) }

  /// One turn. True when there is reason for another without sleeping.
  @discardableResult public func turn() -> Bool {
    defer { arrive() }
    return loop.turnOnce()
  }

  /// Turns until the loop would sleep, or until it has turned `limit` times; how often it did.
  @discardableResult public func settle(limit: Int = 10_000) -> Int {
    var turns = 1
    while turn(), turns < limit { turns += 1 }
    return turns
  }

  /// Fires what is ready, and settles.
  public func poll() {
    backend.poll()
    settle()
  }

  /// Polls until `condition` holds. False when it did not within so many milliseconds.
  public func wait(milliseconds: Int = 5000, until condition: () -> Bool) -> Bool {
    let end = netdev_monotonic_nanoseconds() + UInt64(milliseconds) * 1_000_000
    while true {
      poll()
      if condition() { return true }
      if netdev_monotonic_nanoseconds() > end { return false }
      usleep(200)
    }
  }
}
