package import Netdev

/// Stands for the library's: a number, from 1 in the order in which they were made.
package final class Eventfd: Sendable {
  // Proof: the threads of a model are coroutines of one thread.
  nonisolated(unsafe) private static var count: CInt = 0
  package let descriptor: CInt

  package init(for name: String) throws(NetworkDeviceError) {
    Self.count += 1
    descriptor = Self.count
  }

  /// The next one is the first.
  package static func restart() { count = 0 }
}
