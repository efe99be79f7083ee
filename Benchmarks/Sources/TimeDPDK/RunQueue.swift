import BenchmarkSupport
import Glibc

/// How much of the time the busiest thread of a process waited for a CPU: what somebody else had of it.
struct RunQueue {
  private let process: pid_t
  private let before: [String: Times]
  private let since = ContinuousClock.now

  private struct Times {
    var ran: UInt64
    var waited: UInt64
  }

  /// Begins to watch.
  init(of process: pid_t) {
    self.process = process
    before = Self.times(process)
  }

  /// The share of the time since then that the thread which ran most was ready and did not run.
  var waitingShare: Double {
    let changes = Self.times(process).compactMap { task, now -> Times? in
      guard let then = before[task], now.ran >= then.ran, now.waited >= then.waited else { return nil }
      return Times(ran: now.ran - then.ran, waited: now.waited - then.waited)
    }
    guard let busiest = changes.max(by: { $0.ran < $1.ran }) else { return 0 }
    return Double(busiest.waited) / max(1, (ContinuousClock.now - since) / .nanoseconds(1))
  }

  /// Nanoseconds run and waited of each thread (the kernel's Documentation/scheduler/sched-stats.rst).
  private static func times(_ process: pid_t) -> [String: Times] {
    var all: [String: Times] = [:]
    guard let folder = opendir("/proc/\(process)/task") else { return all }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
      let task = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      let words = textOfFile("/proc/\(process)/task/\(task)/schedstat").split(whereSeparator: \.isWhitespace)
      guard words.count == 3, let ran = UInt64(words[0]), let waited = UInt64(words[1]) else { continue }
      all[task] = Times(ran: ran, waited: waited)
    }
    return all
  }
}
