internal import Glibc

/// What threads wait for and another one brings about, once and for all of them.
@safe package final class OneSignal: @unchecked Sendable {
  // Proof of Sendable: a semaphore is made for threads; it is destroyed with the last who holds it.
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  package init() { unsafe sem_init(semaphore, 0, 0) }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }

  /// Brings it about.
  package func raise() { unsafe sem_post(semaphore) }

  /// Waits for it. Not on a loop, unless it comes without fail.
  package func pass() {
    // A signal may end the wait early: then it goes on.
    while unsafe sem_wait(semaphore) != 0 {}
    // And so may the next one.
    raise()
  }
}
