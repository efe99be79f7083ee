internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import Logging
internal import Netdev

/// The socket on which a back-end is awaited, on the control loop. It lives through reconnections; the file goes with it, if it
/// is still this one's.
actor Listener {
  nonisolated let loop: LoopExecutor
  private let path: String
  private let name: String
  private let logger: Logger
  private var descriptor: CInt = -1
  private var file = netdev_file()
  private var source: LoopSource?
  /// Runs while accepting has failed for want of something that may come back.
  private var pause: LoopTimer?
  private var nextPause = shortestPause
  private var waiter: LoopPromise<CInt>?
  private var isAnnounced = false
  #if Testing
  /// Somebody was let in before.
  private var hasAccepted = false
  #endif

  private static let shortestPause = Duration.milliseconds(10)
  private static let longestPause = Duration.seconds(1)

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(loop: LoopExecutor, path: String, name: String, logger: Logger) {
    self.loop = loop
    self.path = path
    self.name = name
    self.logger = logger
  }

  /// Binds the path, and again when its file has been removed or replaced since: who looks for us there would not find us.
  ///
  /// - Throws: `busy` when somebody else listens there.
  func open() throws(NetworkDeviceError) {
    if descriptor >= 0 {
      if unsafe netdev_unix_has_path(path, file) { return }
      logger.notice("the socket's file is no longer ours", metadata: ["device": "\(name)"])
      close()
    }
    let opened = unsafe netdev_unix_listen(path, &file)
    guard opened >= 0 else { throw NetworkDeviceError(socket: path, errno: -opened, listening: true) }
    descriptor = opened
    do throws(LoopError) {
      source = try loop.makeSource(descriptor: opened, readiness: .readable) { [weak self] in
        self?.assumeIsolated { $0.accept() }
      }
      pause = try loop.makeTimer { [weak self] in self?.assumeIsolated { $0.listen() } }
    } catch {
      close()
      throw NetworkDeviceError(.system, "listening for \(name)", offered: "\(error)")
    }
  }

  /// Says that somebody is waited for, once until he has come.
  func announce() {
    guard !isAnnounced else { return }
    isAnnounced = true
    logger.notice("waiting for the vhost-user back-end to connect", metadata: ["device": "\(name)"])
  }

  /// He has come.
  func found() { isAnnounced = false }

  /// The next connection; its descriptor is the caller's. Whoever knocked before has waited in the backlog. One at a time asks.
  func next(within limit: Duration) async -> LoopPromise<CInt>.Outcome {
    let waiter = LoopPromise<CInt>(loop: loop)
    self.waiter = waiter
    listen()
    let outcome = await waiter.value(within: limit)
    self.waiter = nil
    source?.suspend()
    pause?.unschedule()
    #if Testing
    hasAccepted = true
    #endif
    return outcome
  }

  private func listen() {
    #if Testing
    if unsafe netdev_fault_is_planted("deaf-listener"), hasAccepted { return }
    #endif
    if waiter != nil { source?.resume() }
  }

  private func accept() {
    guard let waiter, !waiter.assumeIsolated({ $0.isSettled }) else { return source?.suspend() ?? () }
    let accepted = netdev_unix_accept(descriptor)
    guard accepted >= 0 else { return waitForRoom(-accepted) }
    nextPause = Self.shortestPause
    // One for whoever waits; the next one waits in the backlog.
    self.waiter = nil
    source?.suspend()
    logger.debug("vhost-user back-end accepted", metadata: ["device": "\(name)"])
    waiter.fulfil(accepted)
  }

  /// The knock may be over before it is answered: then there is another. Without descriptors or memory it stays, and the socket
  /// ready: nobody looks at it for a while.
  private func waitForRoom(_ number: CInt) {
    guard ![EAGAIN, ECONNABORTED, EINTR].contains(number) else { return }
    source?.suspend()
    pause?.schedule(after: nextPause)
    logger.debug(
      "vhost-user back-end not accepted",
      metadata: ["device": "\(name)", "cause": "\(ErrorNumber(number))", "again": "\(nextPause)"])
    nextPause = min(nextPause * 2, Self.longestPause)
  }

  /// Ends listening and removes the socket's file, unless somebody else's has its name by now.
  func close() {
    source?.cancel()
    source = nil
    pause?.cancel()
    pause = nil
    guard descriptor >= 0 else { return }
    unsafe netdev_unix_close_listener(descriptor, path, file)
    descriptor = -1
  }
}

extension NetworkDeviceError {
  /// The task that waited for the back-end was cancelled.
  static var waitCancelled: NetworkDeviceError {
    NetworkDeviceError(.cancelled, "vhost-user", offered: "the task was cancelled before the back-end had answered")
  }

  /// Why a socket cannot be had.
  init(socket path: String, errno number: CInt, listening: Bool) {
    let operation = "\(listening ? "listening on" : "connecting to") \(path)"
    switch number {
    case ENOENT where listening:
      self.init(.notFound, operation, offered: "its directory is not there", advice: "make the directory first")
    case ENOENT, ECONNREFUSED:
      self.init(
        .notFound, operation, offered: "nobody listens there",
        advice: "start the switch first, or let it connect to us with server=1")
    case EACCES, EPERM:
      self.init(.notPermitted, operation, offered: "the socket's permissions", advice: "ask its owner for access")
    case EADDRINUSE:
      self.init(.busy, operation, offered: "the path is taken", advice: "end who listens there, or choose another path")
    case EAGAIN:
      self.init(.busy, operation, offered: "the listener's backlog is full", advice: "does the switch still run?")
    case ENAMETOOLONG:
      self.init(
        .invalidConfiguration, operation, offered: "a path of \(path.utf8.count) bytes", advice: "107 are possible")
    default: self.init(.system, operation, offered: "\(ErrorNumber(number))")
    }
  }
}
