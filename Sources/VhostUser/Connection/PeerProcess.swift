internal import CNetdevSystem
internal import LibeventConcurrency

/// The process at the other end of a socket: that it has exited is the proof that it touches no memory any more, which a
/// closed connection is not.
///
/// Made, used and let go on its loop only. Connections to the same process share one: a process that drops its connection again
/// and again is watched once.
final class PeerProcess: @unchecked Sendable {
  // Proof of Sendable: sessions of one loop share it, and touch it there only.

  /// The process' number, for logs; 0 when it lives in another namespace of numbers.
  let identifier: Int32
  private let identity: UInt64
  private let descriptor: CInt
  private let loop: LoopExecutor
  private var source: LoopSource?
  private var waiters: [LoopPromise<Void>] = []
  private(set) var hasExited = false

  /// The process behind a connected socket, one of those known already if it is one of them; nil when it cannot be told, or when
  /// the process that the socket names is gone although somebody holds its end: then its exit proves nothing.
  ///
  /// - Parameter onExit: called once, on the loop, unless the process was known.
  static func find(
    behind socket: CInt, loop: LoopExecutor, known: [PeerProcess], onExit: @escaping () -> Void
  ) -> PeerProcess? {
    var identifier: Int32 = 0
    let descriptor = unsafe netdev_unix_peer_process(socket, &identifier)
    guard descriptor >= 0 else { return nil }
    let identity = netdev_process_identity(descriptor)
    let isKnown = { (process: PeerProcess) in
      // A process that has not exited keeps its number.
      !process.hasExited
        && (identity != 0 ? process.identity == identity : identifier > 0 && process.identifier == identifier)
    }
    let found = known.first(where: isKnown)
    guard found == nil, identifier != netdev_process_identifier() else {
      netdev_close(descriptor)
      return found
    }
    return PeerProcess(identifier, identity, descriptor, loop: loop, onExit: onExit)
  }

  /// Takes over the descriptor, also when it comes to nothing: what has all its properties has a deinit.
  private init?(
    _ identifier: Int32, _ identity: UInt64, _ descriptor: CInt, loop: LoopExecutor, onExit: @escaping () -> Void
  ) {
    self.identifier = identifier
    self.identity = identity
    self.descriptor = descriptor
    self.loop = loop
    source = nil
    guard
      let source = try? loop.makeSource(
        descriptor: descriptor, readiness: .readable,
        handler: { [weak self] in
          self?.noteExit()
          onExit()
        })
    else { return nil }
    self.source = source
    source.resume()
  }

  private func noteExit() {
    hasExited = true
    source?.cancel()
    source = nil
    for waiter in waiters { waiter.fulfil(()) }
    waiters = []
  }

  /// Waits until the process has exited, no longer than `limit`; the caller looks again.
  func whenExited() -> LoopPromise<Void> {
    let promise = LoopPromise<Void>(loop: loop)
    if hasExited { promise.fulfil(()) } else { waiters.append(promise) }
    return promise
  }

  deinit {
    source?.cancel()
    netdev_close(descriptor)
  }
}
