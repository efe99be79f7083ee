internal import CTestSupport
internal import Foundation
internal import Testing

/// Runs a piece of a test in a network namespace of its own, so that TAP interfaces disturb nobody and nothing is left.
///
/// A namespace belongs to a thread: the test's thread enters a new one, runs the body, which therefore does not await, and
/// goes back. Descriptors opened there keep belonging to the namespace, which goes with the last of them.
package enum NetworkNamespace {
  /// Whether this process may make namespaces and TAP interfaces. In CI the tests run rather than being skipped.
  package static let isAvailable = NamespaceThread.isAvailable
  /// What is said when it may not.
  package static let reason = "needs root and /dev/net/tun"

  /// Runs `body` in a new namespace and returns what it returned.
  package static func run<Result>(_ body: () throws -> Result) throws -> Result {
    let before = test_enter_new_network()
    guard before >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: -before) ?? .EPERM) }
    defer { #expect(test_leave_network(before) == 0) }
    return try body()
  }
}

// The calling thread's namespace; each returns 0 or -errno, as its C twin says.

package func interfaceExists(_ name: String) -> Bool { unsafe test_interface_exists(name) == 1 }
package func makePersistentTap(_ name: String, multiQueue: Bool) -> CInt {
  unsafe test_make_persistent_tap(name, multiQueue ? 1 : 0)
}
package func shell(_ command: String) -> CInt { unsafe test_shell_command(command) }
package func openTapQueue(_ name: String, isTun: Bool = false, withHeaders: Bool) -> CInt {
  unsafe test_open_tap_queue(name, isTun ? 1 : 0, withHeaders ? 1 : 0)
}
package func openPacketSocket(_ interface: String) -> CInt { unsafe test_packet_socket(interface) }
package func setMTU(_ interface: String, _ mtu: CInt) -> CInt { unsafe test_set_mtu(interface, mtu) }
