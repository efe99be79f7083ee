internal import LibeventConcurrency

/// Threads for the runtime's pool.
///
/// Where the system gives none, libdispatch waits within its own call until there is one, a second at a time: on a loop too, when
/// that resumes a task of the pool. So a process that is at its limit already is told so before a device is open. What becomes
/// scarce later is not seen from here.
enum RuntimeThreads {
  /// A few for the pool, and one for what may block.
  private static let needed = 4

  /// Starts as many as that, all at a time, and lets them go.
  ///
  /// - Throws: `system` when there are not enough of them.
  static func secure() throws(NetworkDeviceError) {
    guard LoopWorlds.current == nil else { return }
    let mayEnd = OneSignal()
    var threads: [OwnThread] = []
    for _ in 0..<needed {
      guard let thread = OwnThread("netdev-room", { mayEnd.pass() }) else { break }
      threads.append(thread)
    }
    mayEnd.raise()
    for thread in threads { thread.join() }
    guard threads.count == needed else {
      throw NetworkDeviceError(
        .system, "open", offered: "\(threads.count) threads can be had, and Swift's runtime needs \(needed)",
        advice: "allow the process more tasks (ulimit -u, pids.max)")
    }
  }
}
