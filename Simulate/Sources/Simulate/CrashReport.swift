import Glibc

/// A run that traps, or does not end, says which one it was.
enum CrashReport {
  /// Seconds of real time that a run has, of which the slowest needs a few.
  static let limit: CUnsignedInt = 90

  // Proof: written between runs by the one task that makes them; read by a signal's handler of this process.
  nonisolated(unsafe) private static var trapped = strdup("")
  nonisolated(unsafe) private static var late = strdup("")
  // Proof: given to one world's thread at a time, and used by the kernel alone.
  nonisolated(unsafe) private static let stack = malloc(1 << 16)

  private static let signals = [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGALRM]

  /// A run begins, which this command replays.
  static func note(_ command: String) {
    for line in [trapped, late] { free(line) }
    trapped = strdup("FOUND \(command): it trapped\n")
    late = strdup("FOUND \(command): it has not ended after \(limit) seconds\n")
    alarm(limit)
  }

  static func install() {
    for signal in signals {
      var action = sigaction()
      action.__sigaction_handler.sa_handler = { CrashReport.tell($0) }
      action.sa_flags = SA_ONSTACK
      sigaction(signal, &action, nil)
    }
  }

  /// On a world's thread, whose own mistakes are told on a stack of their own, as one of them is to use up the thread's; and which, unlike
  /// for other signals, is told the end of its time.
  static func arm() {
    var stack = stack_t()
    stack.ss_sp = self.stack
    stack.ss_size = 1 << 16
    sigaltstack(&stack, nil)
    var time = sigset_t()
    sigemptyset(&time)
    sigaddset(&time, SIGALRM)
    pthread_sigmask(SIG_UNBLOCK, &time, nil)
  }

  private static func tell(_ signal: CInt) {
    if let line = signal == SIGALRM ? late : trapped { _ = write(STDOUT_FILENO, line, strlen(line)) }
    _exit(70)
  }
}
