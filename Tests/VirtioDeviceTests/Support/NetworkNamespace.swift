import CTestSupport
import Foundation
import Glibc
import Testing

/// Runs a piece of a test in a network namespace of its own, so that TAP interfaces disturb nobody and nothing is left.
///
/// A namespace belongs to a thread: the test's thread enters a new one, runs the body, which therefore does not await, and
/// goes back. Descriptors opened there keep belonging to the namespace, which goes with the last of them.
enum NetworkNamespace {
  /// Whether this process may make namespaces and TAP interfaces. In CI the tests run rather than being skipped.
  static let isAvailable =
    unsafe ProcessInfo.processInfo.environment["CI"] == "true"
    || (geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0)
  /// What is said when it may not.
  static let reason = "needs root and /dev/net/tun"

  /// Runs `body` in a new namespace and returns what it returned.
  static func run<Result>(_ body: () throws -> Result) throws -> Result {
    let before = test_enter_new_network()
    guard before >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: -before) ?? .EPERM) }
    defer { #expect(test_leave_network(before) == 0) }
    return try body()
  }
}

/// Descriptors of this process that are open on a path with this prefix.
func openDescriptors(of prefix: String) -> Int {
  let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
  return names.count { name in
    let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")
    return target?.hasPrefix(prefix) ?? false
  }
}

/// As many as are open when those of earlier tests have been closed.
func settledDescriptors(of prefix: String) -> Int {
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
func come(to count: Int, of prefix: String) -> Bool {
  for _ in 0..<10_000 {
    if openDescriptors(of: prefix) == count { return true }
    usleep(1000)
  }
  return false
}

// The calling thread's namespace; each returns 0 or -errno, as its C twin says.

func interfaceExists(_ name: String) -> Bool { unsafe test_interface_exists(name) == 1 }
func makePersistentTap(_ name: String, multiQueue: Bool) -> CInt {
  unsafe test_make_persistent_tap(name, multiQueue ? 1 : 0)
}
func shell(_ command: String) -> CInt { unsafe test_shell_command(command) }
func openTapQueue(_ name: String, withHeaders: Bool) -> CInt { unsafe test_open_tap_queue(name, withHeaders ? 1 : 0) }
func openPacketSocket(_ interface: String) -> CInt { unsafe test_packet_socket(interface) }
func setMTU(_ interface: String, _ mtu: CInt) -> CInt { unsafe test_set_mtu(interface, mtu) }
