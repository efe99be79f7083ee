internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency

/// Knows what becomes of an interface: up or down, another MTU, gone.
///
/// The kernel tells of every change through a netlink socket, which costs nothing while there is none, and what is told is only
/// the reason to ask. It answers under the lock of all changes to links, which anybody on the machine may hold for long: so it is
/// asked on a loop of the watch's own, where nobody else waits.
actor InterfaceWatch {
  /// What the kernel says of the interface.
  enum Seen: Sendable {
    case link(netdev_link)
    /// Deleted, or moved to another namespace.
    case gone
  }

  nonisolated let loop: LoopExecutor
  private let netlink: OwnedDescriptor
  private let index: CInt
  private let onLook: @Sendable (Seen) -> Void
  private var source: LoopSource?
  private var isOver = false

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// Begins, with a look.
  ///
  /// - Parameters:
  ///   - netlink: a socket of `netdev_link_watch`.
  ///   - index: the interface's number.
  ///   - onLook: called after each look, on the watch's loop.
  /// - Throws: `LoopError` when a thread or its descriptors cannot be had.
  init(netlink: OwnedDescriptor, index: CInt, onLook: @escaping @Sendable (Seen) -> Void) throws(LoopError) {
    loop = try LoopExecutor(name: "interface-watch")
    self.netlink = netlink
    self.index = index
    self.onLook = onLook
    loop.execute { [self] in assumeIsolated { $0.begin() } }
  }

  /// Ends it: nothing is told any more once the loop has come to this. Does not wait for an answer that is due.
  nonisolated func close() { loop.execute { [self] in assumeIsolated { $0.end() } } }

  private func begin() {
    source = try? loop.makeSource(descriptor: netlink.number, readiness: .readable) { [weak self] in
      self?.assumeIsolated { $0.look() }
    }
    source?.resume()
    look()
  }

  private func end() {
    isOver = true
    source?.cancel()
    source = nil
  }

  private func look() {
    guard !isOver else { return }
    var link = netdev_link()
    switch unsafe netdev_link_look_again(netlink.number, index, &link) {
    case 0: onLook(.link(link))
    case -ENODEV: onLook(.gone)
    case -EAGAIN: return
    // A socket that cannot be read any more must not be watched.
    default: end()
    }
  }
}
