internal import Dispatch
internal import Foundation
internal import Glibc

/// Descriptors that this process has open.
package func openDescriptors() -> Int {
  _ = clocksOfTheRuntime
  return (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? -1
}

/// The runtime opens a timer's descriptor for each clock at the first sleep by it, and keeps it: a test that counted before its first
/// sleep would wait for ever for that one to be closed.
private let clocksOfTheRuntime: Void = {
  let slept = DispatchSemaphore(value: 0)
  Task.detached {
    try? await Task.sleep(for: .milliseconds(1), clock: .continuous)
    try? await Task.sleep(for: .milliseconds(1), clock: .suspending)
    slept.signal()
  }
  slept.wait()
}()

/// Descriptors of this process that are open on a path with this prefix.
package func openDescriptors(of prefix: String) -> Int {
  let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
  return names.count { name in
    let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")
    return target?.hasPrefix(prefix) ?? false
  }
}

/// As many as are open when those of earlier tests have been closed.
package func settledDescriptors(of prefix: String) -> Int {
  var (count, quiet) = (openDescriptors(of: prefix), 0)
  while quiet < 20 {
    usleep(2000)
    let now = openDescriptors(of: prefix)
    quiet = now == count ? quiet + 1 : 0
    count = now
  }
  return count
}

/// Waits until so many are open: what a loop lets go of is closed elsewhere, soon.
package func come(to count: Int, of prefix: String) -> Bool {
  for _ in 0..<10_000 {
    if openDescriptors(of: prefix) == count { return true }
    usleep(1000)
  }
  return false
}
