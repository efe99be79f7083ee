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
    /// Nobody has been able to say anything for a while. Told once; the watch goes on.
    case unknown
  }

  /// Where an interface is that is not where it was.
  package enum Whereabouts: Sendable {
    case found(LinkSocket, netdev_link)
    case gone
    /// Nothing says that it is gone, and nothing where it is.
    case unknown
  }

  /// The name of each watch's loop.
  package static let loopName = "link-watch"

  package nonisolated let loop: LoopExecutor
  private var socket: LinkSocket?
  private var index: CInt
  private let isStill: @Sendable (LinkSocket, netdev_link) -> Bool
  private let follow: @Sendable () -> Whereabouts
  private let onLook: @Sendable (Seen) -> Void
  private var source: LoopSource?
  private var pause: RetryPause?
  private var hasToldOfTrouble = false
  private var isOver = false

  /// Pauses grow to half a minute, as a refusal may be for good: looking must not cost anything then.
  private static let doublings = 15

  package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// Begins, with a look. A look that the system refuses is tried again.
  ///
  /// - Parameters:
  ///   - place: where to listen, and the interface's number there; nil has it looked for by `follow`.
  ///   - reports: of the watch's loop. One that waits for the kernel's lock of links is slow, which is as it should be: stalls
  ///     are not among them.
  ///   - isStill: whether the link that has the interface's number there is the interface: one that has left gives its number free.
  ///     On the watch's loop, where it may block.
  ///   - follow: looks for the interface when it is not there any more. On the watch's loop, where it may block.
  ///   - onLook: called after each look, on the watch's loop.
  /// - Throws: `LoopError` when a thread or its descriptors cannot be had.
  package init(
    _ place: (socket: LinkSocket, index: CInt)?, reports: LoopReports,
    isStill: @escaping @Sendable (LinkSocket, netdev_link) -> Bool, follow: @escaping @Sendable () -> Whereabouts,
    onLook: @escaping @Sendable (Seen) -> Void
  ) throws(LoopError) {
    var reports = reports
    reports.onStall = nil
    loop = try LoopExecutor(name: Self.loopName, reports: reports)
    socket = place?.socket
    index = place?.index ?? 0
    self.isStill = isStill
    self.follow = follow
    self.onLook = onLook
    loop.execute { [self] in assumeIsolated { $0.begin() } }
  }

  /// Ends it: nothing is told any more once the loop has come to this. Does not wait for an answer that is due.
  package nonisolated func close() { loop.execute { [self] in assumeIsolated { $0.end() } } }

  private func begin() {
    pause = try? RetryPause(loop: loop) { [weak self] in self?.assumeIsolated { $0.look() } }
    look()
  }

  private func end() {
    isOver = true
    source?.cancel()
    pause?.cancel()
    source = nil
    pause = nil
    socket = nil
  }

  private func look() {
    guard !isOver else { return }
    guard let socket else { return lookElsewhere() }
    guard isListening(to: socket) else { return }
    var link = netdev_link()
    switch unsafe netdev_link_look_again(socket.descriptor, index, &link) {
    case 0:
      guard isStill(socket, link) else { return lookElsewhere() }
      pause?.succeeded()
      onLook(.link(link))
    case -ENODEV: lookElsewhere()
    // What is refused passes, or lasts: no event tells. EAGAIN: there was no room for the answer.
    default: lookLater()
    }
  }

  private func lookElsewhere() {
    switch follow() {
    case .found(let socket, let link):
      pause?.succeeded()
      source?.cancel()
      source = nil
      self.socket = socket
      index = link.index
      _ = isListening(to: socket)
      onLook(.link(link))
    case .gone:
      end()
      onLook(.gone)
    case .unknown: lookLater()
    }
  }

  /// Makes sure that the socket is watched; otherwise it is tried again later.
  private func isListening(to socket: LinkSocket) -> Bool {
    if source == nil {
      source = try? loop.makeSource(descriptor: socket.descriptor, readiness: .readable, keeping: socket) {
        [weak self] in
        self?.assumeIsolated { $0.look() }
      }
    }
    guard let source else {
      lookLater()
      return false
    }
    source.resume()
    return true
  }

  /// Until the pause is over nobody looks: a socket that is ready and cannot be read would keep the loop awake.
  private func lookLater() {
    source?.suspend()
    let hasLasted = pause.map { $0.refusals >= RetryPause.longest } ?? true
    if hasLasted, !hasToldOfTrouble {
      hasToldOfTrouble = true
      onLook(.unknown)
    }
    // Without a timer there is nothing to wait for.
    if let pause { pause.begin(doubled: Self.doublings) } else { end() }
  }
}
