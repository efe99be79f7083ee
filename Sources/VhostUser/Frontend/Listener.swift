internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import Logging
internal import Netdev

/// The socket on which a back-end is awaited, on the transport's loop. It lives through reconnections; the file goes with it.
actor Listener {
  nonisolated let loop: LoopExecutor
  private let path: String
  private let name: String
  private let logger: Logger
  private var descriptor: CInt = -1
  private var source: LoopSource?
  private var timer: LoopTimer?
  private var waiter: CheckedContinuation<Result<CInt, NetworkDeviceError>, Never>?

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(loop: LoopExecutor, path: String, name: String, logger: Logger) {
    self.loop = loop
    self.path = path
    self.name = name
    self.logger = logger
  }

  /// Binds the path, once.
  func open() throws(NetworkDeviceError) {
    guard descriptor < 0 else { return }
    let opened = unsafe netdev_unix_listen(path)
    guard opened >= 0 else { throw NetworkDeviceError(socket: path, errno: -opened, listening: true) }
    descriptor = opened
    do throws(LoopError) {
      source = try loop.makeSource(descriptor: opened, readiness: .readable) { [weak self] in
        self?.assumeIsolated { $0.accept() }
      }
      timer = try loop.makeTimer { [weak self] in self?.assumeIsolated { $0.timeOut() } }
    } catch {
      throw NetworkDeviceError(.system, "listening for \(name)", offered: "\(error)")
    }
    logger.debug("vhost-user listening", metadata: ["device": "\(name)"])
  }

  /// The next connection; its descriptor is the caller's. Whoever knocked before has waited in the backlog.
  func next(within limit: Duration) async throws(NetworkDeviceError) -> CInt {
    let result = await withTaskCancellationHandler {
      await self.wait(limit)
    } onCancel: {
      Task { await self.settle(.failure(.openCancelled)) }
    }
    return try result.get()
  }

  private func wait(_ limit: Duration) async -> Result<CInt, NetworkDeviceError> {
    if Task.isCancelled { return .failure(.openCancelled) }
    return await withCheckedContinuation { continuation in
      settle(.failure(NetworkDeviceError(.busy, "listening for \(name)", offered: "somebody waits already")))
      waiter = continuation
      source?.resume()
      timer?.schedule(after: limit)
    }
  }

  private func accept() {
    guard waiter != nil else { return }
    let accepted = netdev_unix_accept(descriptor)
    // The knock may be over before it is answered: then there is another, or the time-out.
    guard accepted >= 0 else { return }
    logger.debug("vhost-user back-end accepted", metadata: ["device": "\(name)"])
    settle(.success(accepted))
  }

  private func timeOut() {
    settle(
      .failure(
        NetworkDeviceError(
          .timedOut, "open \(name)", offered: "no back-end connected",
          advice: "start the switch with a client port on \(path)")))
  }

  private func settle(_ result: Result<CInt, NetworkDeviceError>) {
    guard let waiting = waiter else { return }
    waiter = nil
    source?.suspend()
    timer?.unschedule()
    waiting.resume(returning: result)
  }

  /// Ends listening and removes the socket's file.
  func close() {
    settle(.failure(NetworkDeviceError(.closed, name, offered: "it was closed")))
    source?.cancel()
    source = nil
    timer?.cancel()
    timer = nil
    guard descriptor >= 0 else { return }
    netdev_close(descriptor)
    descriptor = -1
    // Whoever looks for it finds nobody there either way.
    _ = unsafe netdev_unlink(path)
  }
}

extension NetworkDeviceError {
  static var openCancelled: NetworkDeviceError {
    NetworkDeviceError(.cancelled, "open", offered: "the task was cancelled before a back-end was there")
  }

  /// Why a socket cannot be had.
  init(socket path: String, errno number: CInt, listening: Bool) {
    let operation = "\(listening ? "listening on" : "connecting to") \(path)"
    switch number {
    case ENOENT, ECONNREFUSED:
      self.init(
        .notFound, operation, offered: "nobody listens there",
        advice: listening ? "make the directory first" : "start the switch first, or let it connect to us with server=1"
      )
    case EACCES, EPERM:
      self.init(.notPermitted, operation, offered: "the socket's permissions", advice: "ask its owner for access")
    case EADDRINUSE:
      self.init(.busy, operation, offered: "the path is taken", advice: "choose another one, or remove the file")
    case EAGAIN:
      self.init(.busy, operation, offered: "the listener's backlog is full", advice: "does the switch still run?")
    case ENAMETOOLONG:
      self.init(
        .invalidConfiguration, operation, offered: "a path of \(path.utf8.count) bytes", advice: "107 are possible")
    default: self.init(.system, operation, offered: "error number \(number)")
    }
  }
}
