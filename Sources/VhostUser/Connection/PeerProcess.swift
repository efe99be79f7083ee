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
    // From here on the object has the descriptor, whatever comes of it.
    let process = PeerProcess(identifier, descriptor, loop: loop)
    if let known = known.first(where: { $0.isSame(as: process) }) { return known }
    guard identifier != netdev_process_identifier(), process.watch(onExit) else { return nil }
    return process
  }

  /// Takes over the descriptor.
  private init(_ identifier: Int32, _ descriptor: CInt, loop: LoopExecutor) {
    self.identifier = identifier
    self.descriptor = descriptor
    self.loop = loop
    identity = netdev_process_identity(descriptor)
  }

  /// A process that has not exited keeps its number.
  private func isSame(as other: PeerProcess) -> Bool {
    !hasExited
      && (other.identity != 0
        ? identity == other.identity : other.identifier > 0 && identifier == other.identifier)
  }

  /// False when the system lets nobody watch it.
  private func watch(_ onExit: @escaping () -> Void) -> Bool {
    source = try? loop.makeSource(descriptor: descriptor, readiness: .readable) { [weak self] in
      self?.noteExit()
      onExit()
    }
    source?.resume()
    return source != nil
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
