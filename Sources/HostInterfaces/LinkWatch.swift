package import CNetdevSystem
internal import Glibc
package import LibeventConcurrency

/// Knows what becomes of an interface of this host: up or down, another MTU, gone.
///
/// The kernel tells of every change of a link through a netlink socket, which costs nothing while there is none. What is told
/// is only the reason to look: what counts is what the kernel says when it is asked then. It answers under the lock of all
/// changes to links, which anybody on the machine may hold for long: so it is asked on a loop of the watch's own, where nobody
/// else waits.
package actor LinkWatch {
  /// What the kernel says of the interface.
  package enum Seen: Sendable {
    case link(netdev_link)
    /// Deleted, or moved to where nobody can look.
    case gone
  }

  /// Where an interface is that is not where it was.
  package enum Whereabouts: Sendable {
    case found(LinkSocket, netdev_link)
    case gone
    /// Nothing says that it is gone, and nothing where it is: frames that are not taken will tell.
    case unknown
  }

  package nonisolated let loop: LoopExecutor
  private var socket: LinkSocket?
  private var index: CInt
  private let follow: @Sendable () -> Whereabouts
  private let onLook: @Sendable (Seen) -> Void
  private var source: LoopSource?
  private var isOver = false

  package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// Begins, with a look.
  ///
  /// - Parameters:
  ///   - place: where to listen, and the interface's number there; nil has it looked for by `follow`.
  ///   - follow: looks for the interface when it is not there any more. On the watch's loop, where it may block.
  ///   - onLook: called after each look, on the watch's loop.
  /// - Throws: `LoopError` when a thread or its descriptors cannot be had.
  package init(
    _ place: (socket: LinkSocket, index: CInt)?, follow: @escaping @Sendable () -> Whereabouts,
    onLook: @escaping @Sendable (Seen) -> Void
  ) throws(LoopError) {
    loop = try LoopExecutor(name: "link-watch")
    socket = place?.socket
    index = place?.index ?? 0
    self.follow = follow
    self.onLook = onLook
    loop.execute { [self] in assumeIsolated { $0.begin() } }
  }

  /// Ends it: nothing is told any more once the loop has come to this. Does not wait for an answer that is due.
  package nonisolated func close() { loop.execute { [self] in assumeIsolated { $0.end() } } }

  private func begin() {
    guard let socket else { return lookElsewhere() }
    listen(to: socket)
    look()
  }

  private func end() {
    isOver = true
    source?.cancel()
    source = nil
    socket = nil
  }

  private func listen(to socket: LinkSocket) {
    source?.cancel()
    self.socket = socket
    source = try? loop.makeSource(descriptor: socket.descriptor, readiness: .readable, keeping: socket) { [weak self] in
      self?.assumeIsolated { $0.look() }
    }
    // A socket that nobody reads would say nothing new.
    if let source { source.resume() } else { end() }
  }

  private func look() {
    guard !isOver, let socket else { return }
    var link = netdev_link()
    switch unsafe netdev_link_look_again(socket.descriptor, index, &link) {
    case 0: onLook(.link(link))
    case -ENODEV: lookElsewhere()
    case -EAGAIN: return
    // A socket that cannot be read any more must not be watched.
    default: end()
    }
  }

  private func lookElsewhere() {
    switch follow() {
    case .found(let socket, let link):
      index = link.index
      listen(to: socket)
      onLook(.link(link))
    case .gone:
      end()
      onLook(.gone)
    case .unknown: end()
    }
  }
}
