internal import CNetdevSystem
internal import LibeventConcurrency
package import Netdev

/// An eventfd that is closed when its last holder goes. A source that keeps it holds it until it has ended on its loop: no
/// number is closed, and given to another descriptor, while a loop watches it.
package final class Eventfd: Sendable {
  package let descriptor: CInt

  /// - Throws: `system` when there is no descriptor left.
  package init(for name: String) throws(NetworkDeviceError) {
    descriptor = netdev_eventfd_create()
    guard descriptor >= 0 else {
      throw NetworkDeviceError(
        .system, "making an eventfd for \(name)", offered: "\(ErrorNumber(descriptor))",
        advice: "raise the limit of open files")
    }
  }

  /// Adds one to the counter: whoever watches it wakes up. From any thread.
  package func signal() { _ = netdev_eventfd_signal(descriptor) }

  deinit { if descriptor >= 0 { netdev_close(descriptor) } }
}
