import BenchmarkSupport
import Foundation
import Glibc
import Synchronization

/// What this program leaves nothing of: a folder for sockets and DPDK's own files, and the processes it started.
final class Workspace: Sendable {
  let folder: String
  private let processes = Mutex<[pid_t]>([])

  /// Makes the folder. From here on an interrupt ends the processes and removes it; call it before there are threads.
  init() throws {
    var template = Array("/tmp/netdev-dpdk-XXXXXX".utf8CString)
    guard let made = mkdtemp(&template) else {
      throw Stop("no folder under /tmp: \(String(cString: strerror(errno)))", status: EX_CANTCREAT)
    }
    folder = String(cString: made)
    // DPDK keeps what it shares between processes there (rte_eal: systemd's RuntimeDirectory).
    setenv("RUNTIME_DIRECTORY", folder, 1)
    // A testpmd that ended does not take this program with it: the write says so.
    signal(SIGPIPE, SIG_IGN)
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, number) }
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    Thread.detachNewThread { [self, signals] in
      var signals = signals
      var number: CInt = 0
      sigwait(&signals, &number)
      cleanUp()
      _exit(128 + number)
    }
  }

  /// A name in the folder.
  func path(_ name: String) -> String { "\(folder)/\(name)" }

  func add(_ process: pid_t) { processes.withLock { $0.append(process) } }

  /// The process has been waited for: its number may belong to somebody else now.
  func remove(_ process: pid_t) { processes.withLock { $0.removeAll { $0 == process } } }

  func cleanUp() {
    processes.withLock { processes in
      for process in processes { kill(process, SIGKILL) }
      // Gone, not only told to go: until then it may make another file in the folder.
      for process in processes { waitpid(process, nil, 0) }
      processes = []
      // Under the lock: an interrupt comes here while the main thread does, for the processes that it ended.
      try? FileManager.default.removeItem(atPath: folder)
    }
  }
}
