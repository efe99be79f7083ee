internal import Glibc
internal import Synchronization

/// SIGINT and SIGTERM: the first asks the program to end, the next ends it at once, whatever it is doing.
///
/// The handler of the first wakes a thread that waits for nothing else, so that it comes through when the program's other
/// threads are busy or blocked. From then on the signals have their usual effect again.
public enum EndingSignals {
  /// From here on the first signal calls `body`, on a thread of its own. If such a thread cannot be had, the signals keep
  /// their usual effect: they end the program. Called again before the first signal, it is the latest `body` that is called, and
  /// no other; after that it changes nothing.
  public static func handle(_ body: @escaping @Sendable () -> Void) {
    let isFirst = Self.body.withLock { present in
      defer { present = body }
      return present == nil
    }
    guard isFirst, unsafe woken != nil, start() else { return }
    for number in numbers {
      var action = sigaction()
      unsafe action.__sigaction_handler.sa_handler = { _ in
        // Made before this handler was installed; `sem_post` is one of the calls that a handler may make.
        if let woken = unsafe EndingSignals.woken { unsafe sem_post(woken) }
      }
      // The same signal again ends the program even before the waiting thread has run.
      action.sa_flags = CInt(bitPattern: UInt32(SA_RESETHAND)) | SA_RESTART
      unsafe sigaction(number, &action, nil)
    }
  }

  private static let numbers = [SIGINT, SIGTERM]

  // Proof: a semaphore, made once and never freed; threads and a handler use it by calls that are made for that.
  private nonisolated(unsafe) static let woken: UnsafeMutablePointer<sem_t>? = {
    let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    unsafe semaphore.initialize(to: sem_t())
    return unsafe sem_init(semaphore, 0, 0) == 0 ? semaphore : nil
  }()

  /// What the first signal calls.
  private static let body = Mutex<(@Sendable () -> Void)?>(nil)

  /// What the waiting thread does.
  private static func wait() {
    guard let woken = unsafe woken else { return }
    while unsafe sem_wait(woken) != 0 {}
    for number in numbers { signal(number, SIG_DFL) }
    body.withLock { $0 }?()
  }

  private static func start() -> Bool {
    var thread = pthread_t()
    // The waiting thread must not be the one that is interrupted.
    var (all, before) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
    let result = unsafe pthread_create(
      &thread, nil,
      { _ in
        EndingSignals.wait()
        return nil
      }, nil)
    unsafe pthread_sigmask(SIG_SETMASK, &before, nil)
    return result == 0
  }
}
