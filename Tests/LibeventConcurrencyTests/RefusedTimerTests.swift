import CNetdevSystem
import CTestSupport
import Glibc
import TestSupport
import Testing

@testable import LibeventConcurrency

/// A system that does not set the loop's timerfd: deadlines are kept by libevent's timer, late and not early, and nothing spins.
@Suite(.timeLimit(.minutes(2))) struct RefusedTimerTests {
  /// Waits until `isOver`, as a loop without anything else to do; how often.
  private func wait(_ backend: LibeventBackend, until isOver: () -> Bool) -> Int {
    var waits = 0
    while !isOver(), waits < 1_000_000 {
      backend.wait()
      waits += 1
    }
    return waits
  }

  /// Lets a timer fire: the timerfd is readable then, until it is set anew.
  private func fireOnce(_ backend: LibeventBackend) throws {
    var hasFired = false
    let timer = try backend.makeTimer { hasFired = true }
    timer.arm(afterNanoseconds: 1_000_000)
    #expect(wait(backend, until: { hasFired }) < 10)
    timer.cancel()
  }

  @Test func `deadlines are kept, none early, and a timerfd that stays readable does not keep the loop awake`() throws {
    let backend = try LibeventBackend()
    try fireOnce(backend)
    var waits = 0
    var lateness: [Int64] = []
    let result = onThreadRefusing(test_call_timerfd_settime, EINVAL) {
      for delay: UInt64 in [40_000_000, 1, 3_000_000, 90_000_000] {
        var hasFired = false
        guard let timer = try? backend.makeTimer(handler: { hasFired = true }) else { return }
        let deadline = backend.now + delay
        timer.arm(afterNanoseconds: delay)
        waits += wait(backend) { hasFired }
        lateness.append(Int64(bitPattern: backend.now &- deadline))
        timer.cancel()
      }
    }
    #expect(result == 0)
    #expect(lateness.count == 4)
    #expect(lateness.allSatisfy { $0 >= 0 })
    #expect(waits < 100)
    #expect(backend.refusedTimers > 0)
    // Set again as soon as the system does so.
    let refused = backend.refusedTimers
    try fireOnce(backend)
    try fireOnce(backend)
    #expect(backend.refusedTimers == refused)
    backend.close()
  }
}
