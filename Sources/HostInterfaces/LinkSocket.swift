package import CNetdevSystem

/// A netlink socket that is readable when a link of its namespace has changed.
package final class LinkSocket: Sendable {
  package let descriptor: CInt

  private init?(taking descriptor: CInt) {
    guard descriptor >= 0 else { return nil }
    self.descriptor = descriptor
  }

  /// Of the calling thread's namespace; nil where the system refuses it.
  package convenience init?() { self.init(taking: netdev_link_watch()) }

  /// Of the namespace that the interface of a TAP queue is in now; nil where this process may not go there.
  package convenience init?(besideTap queue: CInt) { self.init(taking: netdev_link_watch_beside(queue)) }

  /// Whether its namespace is the one that the interface of a TAP queue is in now; nil where the kernel does not tell this process.
  package func isBeside(tap queue: CInt) -> Bool? {
    let answer = netdev_link_is_beside(descriptor, queue)
    return answer < 0 ? nil : answer != 0
  }

  deinit { netdev_close(descriptor) }

  /// The link of this name, as the kernel has it; nil where it does not say. Waits for whoever changes links: not on a loop.
  package func look(_ name: String) -> netdev_link? {
    var link = netdev_link()
    return unsafe netdev_link_look(descriptor, name, &link) == 0 ? link : nil
  }
}

extension netdev_link {
  /// Its name, for the moment.
  package var interfaceName: String {
    unsafe withUnsafeBytes(of: name) { bytes in unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
