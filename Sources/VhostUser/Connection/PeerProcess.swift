internal import CNetdevSystem
internal import LibeventConcurrency

/// The process at the other end of a socket: that it has exited is the proof that it touches no memory any more, which a
/// closed connection is not.
///
/// Made, used and let go on its loop only.
final class PeerProcess {
  /// The process' number, for logs.
  let identifier: Int32
  private let descriptor: CInt
  private var source: LoopSource?
  private(set) var hasExited = false

  /// The process behind a connected socket; nil when it cannot be told, or when the process that the socket names is gone
  /// although somebody holds its end: then its exit proves nothing.
  init?(of socket: CInt, loop: LoopExecutor, onExit: @escaping () -> Void) {
    var identifier: Int32 = 0
    let descriptor = unsafe netdev_unix_peer_process(socket, &identifier)
    guard descriptor >= 0, identifier != netdev_process_identifier() else {
      if descriptor >= 0 { netdev_close(descriptor) }
      return nil
    }
    self.identifier = identifier
    self.descriptor = descriptor
    source = try? loop.makeSource(descriptor: descriptor, readiness: .readable) { [weak self] in
      self?.source?.cancel()
      self?.hasExited = true
      onExit()
    }
    source?.resume()
  }

  deinit {
    source?.cancel()
    netdev_close(descriptor)
  }
}
