internal import CNetdevSystem
internal import LibeventConcurrency
internal import Logging
internal import Netdev

/// One connection to a back-end, from the first message to the end: on the transport's loop.
///
/// A request is in flight at a time and has a time-out. What breaks the protocol, the time or the connection ends the
/// session: everything that waits, and whatever comes later, fails with the same cause.
actor Session {
  nonisolated let loop: LoopExecutor
  nonisolated let name: String
  nonisolated let logger: Logger
  private let requestTimeout: Duration
  private let onLoss: @Sendable (Session, NetworkDeviceError) -> Void
  private let onConfigChange: @Sendable (Session) async -> Void
  private var configReader = ConfigReader()

  private var socket: MessageSocket?
  private var peer: PeerProcess?
  private var channel: MessageSocket?
  private var exchange: Exchange?
  private var exchangeTimer: LoopTimer?
  private var exchangesMade: UInt64 = 0
  /// Who wants to ask next, first come first served.
  private var line: [CheckedContinuation<Void, Never>] = []
  private var isAsking = false
  private var exitWaiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
  private var nextExitWaiter: UInt64 = 0

  /// Why the session is over; nil while it works.
  private(set) var failure: NetworkDeviceError?
  /// Messages without an answer of their own are acknowledged (REPLY_ACK).
  private var acknowledges = false
  /// What was agreed; see `Session+Agreement`.
  var agreement = Agreement()
  /// Rings that were started and not stopped.
  var startedRings: [UInt32] = []
  /// The back-end has everything that it needs: its loss is an event, and no longer the failure of what is being done.
  var isDriven = false
  private var wasGone = false

  private struct Exchange {
    let message: FrontendMessage
    let awaitsReply: Bool
    let continuation: CheckedContinuation<Result<FrontendReply?, NetworkDeviceError>, Never>
  }

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// A session that `open` brings to life.
  init(
    loop: LoopExecutor, name: String, logger: Logger, requestTimeout: Duration,
    onLoss: @escaping @Sendable (Session, NetworkDeviceError) -> Void,
    onConfigChange: @escaping @Sendable (Session) async -> Void
  ) {
    self.loop = loop
    self.name = name
    self.logger = logger
    self.requestTimeout = requestTimeout
    self.onLoss = onLoss
    self.onConfigChange = onConfigChange
  }

  /// Begins on a connected socket, which it takes over.
  func open(descriptor: CInt) throws(NetworkDeviceError) {
    do throws(LoopError) {
      peer = PeerProcess(of: descriptor, loop: loop) { [weak self] in self?.assumeIsolated { $0.noteExit() } }
      socket = try MessageSocket(
        descriptor: descriptor, loop: loop,
        onMessage: { [weak self] message in self?.assumeIsolated { $0.receive(message) } },
        onEnd: { [weak self] reason in self?.assumeIsolated { $0.lose(reason) } })
      exchangeTimer = try loop.makeTimer { [weak self] in self?.assumeIsolated { $0.timeOut() } }
    } catch {
      throw NetworkDeviceError(.system, "connecting \(name)", offered: "\(error)")
    }
    logger.trace("vhost-user connected", metadata: ["device": "\(name)", "peer": "\(peer?.identifier ?? 0)"])
  }
}

// MARK: - Asking

extension Session {
  /// Sends a message and returns when it was answered, or acknowledged, or, where neither is agreed, sent.
  ///
  /// - Parameter limit: the time it may take; nil is the session's own.
  /// - Returns: the answer; nil where there is none.
  @discardableResult func ask(
    _ message: FrontendMessage, within limit: Duration? = nil
  ) async throws(NetworkDeviceError) -> FrontendReply? {
    if isAsking { await withCheckedContinuation { line.append($0) } }
    isAsking = true
    defer { if line.isEmpty { isAsking = false } else { line.removeFirst().resume() } }
    if let failure { throw failure }
    let result = await withCheckedContinuation { continuation in
      begin(message, within: limit ?? requestTimeout, continuation)
    }
    let reply = try result.get()
    guard let reply, !message.hasReply, reply.number != 0 else { return reply }
    throw NetworkDeviceError(
      .unsupported, "\(message.code) to \(name)", offered: "the back-end refused it with \(reply.number)",
      advice: "see the back-end's own log")
  }

  /// As `ask`, for a message that is answered with a number.
  func number(_ message: FrontendMessage) async throws(NetworkDeviceError) -> UInt64 {
    try await ask(message)?.number ?? 0
  }

  /// REPLY_ACK was agreed.
  func beginAcknowledging() { acknowledges = true }

  private func begin(
    _ message: FrontendMessage, within limit: Duration,
    _ continuation: CheckedContinuation<Result<FrontendReply?, NetworkDeviceError>, Never>
  ) {
    let awaitsReply = message.hasReply || acknowledges
    exchange = Exchange(message: message, awaitsReply: awaitsReply, continuation: continuation)
    exchangesMade &+= 1
    exchangeTimer?.schedule(after: limit)
    let payload = message.payload
    let header = MessageHeader(
      request: message.code.rawValue, payloadSize: payload.count, needsReply: awaitsReply && !message.hasReply)
    trace("→", message.traceText, message.descriptors)
    let turn = exchangesMade
    socket?.send(header.encoded + payload, descriptors: message.descriptors) { [weak self] in
      self?.assumeIsolated { $0.sent(turn) }
    }
  }

  private func sent(_ turn: UInt64) {
    guard turn == exchangesMade, let exchange, !exchange.awaitsReply else { return }
    settle(.success(nil))
  }

  private func receive(_ incoming: MessageSocket.Incoming) {
    // Nothing that this front-end asks is answered with a descriptor.
    defer { for descriptor in incoming.descriptors { netdev_close(descriptor) } }
    let code = FrontendCode(rawValue: incoming.header.request)
    guard let exchange, exchange.awaitsReply else {
      trace("←", "\(code)", incoming.descriptors)
      return lose("\(code) from the back-end, which was asked nothing")
    }
    do throws(ProtocolError) {
      let reply = try FrontendReply(
        to: exchange.message, header: incoming.header, payload: incoming.payload,
        descriptors: incoming.descriptors.count)
      trace("←", "\(code) \(reply.traceText(for: exchange.message))", incoming.descriptors)
      settle(.success(reply))
    } catch {
      trace("←", "\(code)", incoming.descriptors)
      lose("\(error)")
    }
  }

  private func settle(_ result: Result<FrontendReply?, NetworkDeviceError>) {
    exchangeTimer?.unschedule()
    exchange?.continuation.resume(returning: result)
    exchange = nil
  }

  private func timeOut() {
    guard let exchange else { return }
    fail(
      NetworkDeviceError(
        .timedOut, "\(exchange.message.code) to \(name)", offered: "no answer in time",
        advice: "is the back-end busy, stopped in a debugger, or serving another front-end on this socket?"))
  }

  func trace(_ direction: String, _ text: String, _ descriptors: [CInt]) {
    logger.trace(
      "vhost-user \(direction) \(text)",
      metadata: descriptors.isEmpty ? nil : ["fds": "\(descriptors.map { String($0) }.joined(separator: " "))"])
  }
}

// MARK: - The end

extension Session {
  private func lose(_ reason: String) {
    fail(
      NetworkDeviceError(
        .broken, name, offered: reason, advice: "see the back-end's own log, and trace this device's messages"))
  }

  /// Ends the session for this cause. The connection is closed; the process behind it is still watched.
  func fail(_ cause: NetworkDeviceError) {
    guard failure == nil else { return }
    failure = cause
    logger.debug("vhost-user session over", metadata: ["device": "\(name)", "cause": "\(cause)"])
    socket?.close()
    socket = nil
    channel?.close()
    channel = nil
    settle(.failure(cause))
    if peer?.hasExited == true { wakeExitWaiters() }
    if isDriven { onLoss(self, cause) }
  }

  /// Ends the session without anybody being told.
  func shutDown() {
    if failure == nil { failure = NetworkDeviceError(.closed, name, offered: "it was closed") }
    socket?.close()
    socket = nil
    channel?.close()
    channel = nil
    exchangeTimer?.cancel()
    exchangeTimer = nil
    exchange?.continuation.resume(returning: .failure(NetworkDeviceError(.closed, name, offered: "it was closed")))
    exchange = nil
    wasGone = isGone
    peer = nil
    wakeExitWaiters()
  }

  /// True when the connection is over and the process behind it has exited: nobody touches the memory any more. An exit
  /// under a connection that still works is no proof: somebody else holds the other end.
  var isGone: Bool { wasGone || failure != nil && peer?.hasExited == true }

  private func noteExit() {
    guard failure != nil else { return }
    wakeExitWaiters()
  }

  private func wakeExitWaiters() {
    let waiting = exitWaiters
    exitWaiters = [:]
    for waiter in waiting.values { waiter.resume() }
  }

  /// Waits until `isGone`, but no longer than `limit`; says whether it is so. Ends early when the task is cancelled.
  func isGone(within limit: Duration) async -> Bool {
    guard !isGone, peer != nil else { return isGone }
    nextExitWaiter &+= 1
    let waiter = nextExitWaiter
    let clock = Task { [weak self] in
      try? await Task.sleep(for: limit)
      await self?.giveUpExit(waiter)
    }
    await withTaskCancellationHandler {
      await self.waitForExit(waiter)
    } onCancel: {
      clock.cancel()
    }
    clock.cancel()
    return isGone
  }

  private func waitForExit(_ waiter: UInt64) async {
    if Task.isCancelled { return }
    await withCheckedContinuation { exitWaiters[waiter] = $0 }
  }

  private func giveUpExit(_ waiter: UInt64) { exitWaiters.removeValue(forKey: waiter)?.resume() }
}

// MARK: - The back-end's own requests

extension Session {
  /// Makes the channel on which the back-end asks, and gives it the other end.
  func openChannel() async throws(NetworkDeviceError) {
    var ends: [CInt] = [-1, -1]
    let result = unsafe netdev_unix_pair(&ends)
    guard result == 0 else {
      throw NetworkDeviceError(.system, "connecting \(name)", offered: "no socket pair: error number \(-result)")
    }
    defer { netdev_close(ends[1]) }
    do throws(LoopError) {
      channel = try MessageSocket(
        descriptor: ends[0], loop: loop,
        onMessage: { [weak self] message in self?.assumeIsolated { $0.answer(message) } },
        onEnd: { [weak self] reason in self?.assumeIsolated { $0.loseChannel(reason) } })
    } catch {
      throw NetworkDeviceError(.system, "connecting \(name)", offered: "\(error)")
    }
    try await ask(.setBackendReqFD(ends[1]))
  }

  /// The session goes on: the back-end can only ask nothing more.
  private func loseChannel(_ reason: String) {
    channel = nil
    logger.debug("vhost-user back-end channel over", metadata: ["device": "\(name)", "cause": "\(reason)"])
  }

  private func answer(_ incoming: MessageSocket.Incoming) {
    let code = BackendCode(rawValue: incoming.header.request)
    trace("←", "\(code)", incoming.descriptors)
    for descriptor in incoming.descriptors { netdev_close(descriptor) }
    // Everything else that the document knows needs features that this front-end does not accept.
    let isUnderstood = code == .configChange && incoming.payload.isEmpty && incoming.descriptors.isEmpty
    if isUnderstood, !incoming.header.isReply { noteConfigChange() }
    guard incoming.header.needsReply, !incoming.header.isReply else { return }
    let result: UInt64 = isUnderstood ? 0 : 1
    var writer = PayloadWriter()
    writer.append(result)
    let header = MessageHeader(request: code.rawValue, payloadSize: writer.bytes.count, isReply: true)
    trace("→", "\(code) \(acknowledgement(result))", [])
    channel?.send(header.encoded + writer.bytes)
  }
}

// MARK: - A changed configuration

extension Session {
  /// Whether the configuration is being looked at.
  private struct ConfigReader {
    var isReading = false
    /// It has changed since the present reading began.
    var isStale = false
  }

  /// Has the configuration looked at, once more when it changes meanwhile: however often the back-end says so, it is asked for
  /// it at the pace of its own answers.
  private func noteConfigChange() {
    guard agreement.protocolFeatures.contains(.config), isDriven else { return }
    configReader.isStale = true
    guard !configReader.isReading else { return }
    configReader.isReading = true
    Task { await readConfig() }
  }

  private func readConfig() async {
    while configReader.isStale, failure == nil {
      configReader.isStale = false
      await onConfigChange(self)
    }
    configReader.isReading = false
  }
}
