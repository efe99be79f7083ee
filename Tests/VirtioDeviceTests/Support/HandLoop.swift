import CNetdevSystem
import Glibc

@testable import LibeventConcurrency

/// A loop that a test turns by hand on its own thread, on which the test is at home between the turns.
///
/// Nothing happens by itself: the order of driver and device is the order of the test's lines. Descriptors are watched by a
/// real event base, and looked at when the test says so.
@safe final class HandLoop {
  let loop: LoopExecutor
  private let backend: any LoopBackend

  convenience init() throws { self.init(backend: try LibeventBackend()) }

  /// On a backend, and by a clock, of the test's own.
  init(backend: any LoopBackend) {
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
  func arrive() { unsafe netdev_set_current_loop(loop.core) }

  /// One turn. True when there is reason for another without sleeping.
  @discardableResult func turn() -> Bool {
    defer { arrive() }
    return loop.turnOnce()
  }

  /// Turns until the loop would sleep; how often.
  @discardableResult func settle(limit: Int = 10_000) -> Int {
    var turns = 1
    while turn(), turns < limit { turns += 1 }
    return turns
  }

  /// Fires what is ready and settles.
  func poll() {
    backend.poll()
    settle()
  }

  /// Polls until `condition` holds. False when it did not in time.
  func wait(milliseconds: Int = 5000, until condition: () -> Bool) -> Bool {
    let end = netdev_monotonic_nanoseconds() + UInt64(milliseconds) * 1_000_000
    while true {
      poll()
      if condition() { return true }
      if netdev_monotonic_nanoseconds() > end { return false }
      usleep(200)
    }
  }
}
