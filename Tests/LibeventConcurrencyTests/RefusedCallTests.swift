import CNetdevSystem
import CTestSupport
import Glibc
import TestSupport
import Testing

@testable import LibeventConcurrency

/// What a filter of system calls answers, for a call that it does not know: it has several numbers to choose from.
let refusals = [EPERM, EACCES, ENOSYS, EOPNOTSUPP, EINVAL, EIO]

/// A system without the call that reads a counter for sure without waiting: it is read in another way, and nothing spins.
@Suite(.timeLimit(.minutes(2))) struct RefusedCallTests {
  @Test(arguments: refusals) func `a counter is emptied, whatever number refuses the call for it`(_ error: CInt) {
    let descriptor = netdev_eventfd_create()
    defer { netdev_close(descriptor) }
    var counts: [UInt64] = []
    let result = onThreadRefusing(test_call_preadv2, error) {
      for signals in [1, 3, 0] {
        for _ in 0..<signals { _ = netdev_eventfd_signal(descriptor) }
        counts.append(netdev_eventfd_drain(descriptor))
      }
    }
    #expect(result == 0)
    #expect(counts == [1, 3, 0])
    #expect(!netdev_descriptor_is_ready(descriptor, false))
  }

  @Test(arguments: refusals) func `a loop that was woken sleeps again, whatever number refuses the call`(
    _ error: CInt
  ) throws {
    let backend = try LibeventBackend()
    var waits = 0
    let result = onThreadRefusing(test_call_preadv2, error) {
      var hasFired = false
      guard let timer = try? backend.makeTimer(handler: { hasFired = true }) else { return }
      backend.wake()
      timer.arm(afterNanoseconds: 50_000_000)
      while !hasFired, waits < 1_000_000 {
        backend.wait()
        waits += 1
      }
      timer.cancel()
    }
    #expect(result == 0)
    // The wake-up and the timer, and some to spare.
    #expect(waits > 0 && waits < 10)
    backend.close()
  }
}
