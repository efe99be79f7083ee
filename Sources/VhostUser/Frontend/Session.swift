internal import CNetdevSystem
internal import LibeventConcurrency
internal import Logging
internal import Netdev

/// One connection to a back-end, from the first message to the end: on the control loop.
///
/// Questions are asked one after the other, each with a time-out. What breaks the protocol, the time or the connection ends the
/// session: what waits, and whatever comes later, fails with the same cause. A question whose asker was cancelled ends nothing:
/// its answer is still awaited, in its order, checked and dropped, so that the next question, the one that stops a ring, has its
/// turn.
actor Session {
  nonisolated let loop: LoopExecutor
  nonisolated let name: String
  nonisolated let logger: Logger
  private let requestTimeout: Duration
  private let onNews: @Sendable () -> Void

  private var socket: MessageSocket?
  private(set) var peer: PeerProcess?
  private var channel: MessageSocket?
  /// Questions that are not done with, oldest first: at most one that is not abandoned, and that is the last.
  private var exchanges: [Exchange] = []
  private var exchangesMade: UInt64 = 0

  /// Why the session is over; nil while it works.
  private(set) var failure: NetworkDeviceError?
  /// Messages without an answer of their own are acknowledged (REPLY_ACK).
  private var acknowledges = false
  /// What was agreed; see `Session+Agreement`.
  var agreement = Agreement()
  /// Rings that were started and not stopped.
  var startedRings: [UInt32] = []
  /// Those of them that are not enabled.
  var disabledRings: Set<UInt32> = []
  private var configHasChanged = false
  #if Testing
  /// When the rings were started.
  var handshake: UInt64?
  /// It was over within a millisecond of that.
  private(set) var isLostAtOnce = false
  #endif
  /// Runs when the channel is over and the session is not.
  private var deafness: LoopTimer?
  private var wasGone = false

  private struct Exchange {
    let number: UInt64
    let message: FrontendMessage
    let awaitsReply: Bool
    let promise: LoopPromise<Result<FrontendReply?, NetworkDeviceError>>
    var isSent = false
  }

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// A session that `open` brings to life.
  ///
  /// - Parameter onNews: called on the loop when the session is over, the process behind it has exited, or the configuration has
  ///   changed.
  init(
    loop: LoopExecutor, name: String, logger: Logger, requestTimeout: Duration, onNews: @escaping @Sendable () -> Void
  ) {
    self.loop = loop
    self.name = name
    self.logger = logger
    self.requestTimeout = requestTimeout
    self.onNews = onNews
  }

  /// Begins on a connected socket, which it takes over.
  ///
  /// - Parameter others: sessions whose peers are watched already.
  func open(descriptor: CInt, others: [Session] = []) throws(NetworkDeviceError) {
    do throws(LoopError) {
      let onNews = onNews
      let known = others.compactMap { other in other.assumeIsolated { $0.peer } }
      peer = PeerProcess.find(behind: descriptor, loop: loop, known: known, onExit: { onNews() })
      socket = try MessageSocket(
        descriptor: descriptor, loop: loop,
        onMessage: { [weak self] message in self?.assumeIsolated { $0.receive(message) } },
        onEnd: { [weak self] reason in self?.assumeIsolated { $0.lose(reason) } })
    } catch {
      throw NetworkDeviceError(.system, "connecting \(name)", offered: "\(error)")
    }
    logger.trace("vhost-user connected", metadata: ["device": "\(name)", "peer": "\(peer?.identifier ?? 0)"])
  }
}

// MARK: - Asking

extension Session {
  /// Sends a message and returns when it was answered, or acknowledged, or, where neither is agreed, sent. The first question of a
  /// task that is cancelled meanwhile throws `cancelled`.
  ///
  /// - Parameter limit: the time it may take; nil is the session's own.
  /// - Returns: the answer; nil where there is none.
  @discardableResult func ask(
    _ message: FrontendMessage, within limit: Duration? = nil
  ) async throws(NetworkDeviceError) -> FrontendReply? {
    if let failure { throw failure }
    let promise = LoopPromise<Result<FrontendReply?, NetworkDeviceError>>(loop: loop)
    let number = begin(message, promise)
    let reply: FrontendReply?
    switch await promise.value(within: limit ?? requestTimeout) {
    case .value(let result): reply = try result.get()
    case .timedOut:
      let error = NetworkDeviceError(
        .timedOut, "\(message.code) to \(name)", offered: "no answer in time",
        advice: "is the back-end busy, stopped in a debugger, or serving another front-end on this socket?")
      fail(error)
      throw error
    case .cancelled:
      abandon(number)
      throw .waitCancelled
    }
    guard let reply, !message.hasReply, reply.number != 0 else { return reply }
    throw NetworkDeviceError(
      .unsupported, "\(message.code) to \(name)", offered: "the back-end refused it with \(reply.number)",
      advice: "see the back-end's own log")
  }

  /// As `ask`, for a message that is answered with a number.
  func number(_ message: FrontendMessage, within limit: Duration? = nil) async throws(NetworkDeviceError) -> UInt64 {
    try await ask(message, within: limit)?.number ?? 0
  }

  /// REPLY_ACK was agreed.
  func beginAcknowledging() { acknowledges = true }

  private func begin(
    _ message: FrontendMessage, _ promise: LoopPromise<Result<FrontendReply?, NetworkDeviceError>>
  ) -> UInt64 {
    let awaitsReply = message.hasReply || acknowledges
    exchangesMade &+= 1
    let number = exchangesMade
    exchanges.append(Exchange(number: number, message: message, awaitsReply: awaitsReply, promise: promise))
    let payload = message.payload
    let header = MessageHeader(
      request: message.code.rawValue, payloadSize: payload.count, needsReply: awaitsReply && !message.hasReply)
    trace("→", message.traceText, message.descriptors)
    socket?.send(header.encoded + payload, descriptors: message.descriptors) { [weak self] in
      self?.assumeIsolated { $0.sent(number) }
    }
    return number
  }

  private func sent(_ number: UInt64) {
    guard let position = exchanges.firstIndex(where: { $0.number == number }) else { return }
    exchanges[position].isSent = true
    if !exchanges[position].awaitsReply { exchanges.remove(at: position).promise.fulfil(.success(nil)) }
  }

  /// Nobody waits for this answer any more. A message that has not gone out whole cannot be taken back, and the descriptors that
  /// it would take with it are its asker's to close: then the connection ends.
  private func abandon(_ number: UInt64) {
    guard let exchange = exchanges.first(where: { $0.number == number }), !exchange.isSent else { return }
    fail(.waitCancelled)
  }

  private func receive(_ incoming: MessageSocket.Incoming) {
    // Nothing that this front-end asks is answered with a descriptor.
    defer { for descriptor in incoming.descriptors { netdev_close(descriptor) } }
    let code = FrontendCode(rawValue: incoming.header.request)
    guard let position = exchanges.firstIndex(where: { $0.awaitsReply && $0.isSent }) else {
      trace("←", "\(code)", incoming.descriptors)
      return lose("\(code) from the back-end, which was asked nothing")
    }
    let exchange = exchanges[position]
    do throws(ProtocolError) {
      let reply = try FrontendReply(
        to: exchange.message, header: incoming.header, payload: incoming.payload,
        descriptors: incoming.descriptors.count)
      trace("←", "\(code) \(reply.traceText(for: exchange.message))", incoming.descriptors)
      exchanges.remove(at: position)
      exchange.promise.fulfil(.success(reply))
    } catch {
      trace("←", "\(code)", incoming.descriptors)
      lose("\(error)")
    }
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
    disconnect(cause)
    #if Testing
    if let handshake { isLostAtOnce = loop.now - handshake < 1_000_000 }
    #endif
    onNews()
  }

  private func disconnect(_ cause: NetworkDeviceError) {
    socket?.close()
    socket = nil
    channel?.close()
    channel = nil
    deafness?.cancel()
    deafness = nil
    for exchange in exchanges { exchange.promise.fulfil(.failure(cause)) }
    exchanges = []
  }

  /// Ends the session without anybody being told, and the watch on the process.
  func shutDown() {
    let cause = failure ?? NetworkDeviceError(.closed, name, offered: "it was closed")
    failure = cause
    disconnect(cause)
    wasGone = isGone
    peer = nil
  }

  /// True when the connection is over and the process behind it has exited: nobody touches the memory any more. An exit
  /// under a connection that still works is no proof: somebody else holds the other end.
  var isGone: Bool { wasGone || failure != nil && peer?.hasExited == true }

  /// Waits until `isGone`, but no longer than `limit`; says whether it is so. A cancelled task does not wait, nor does one that is
  /// told so by `isVain`: the process is known to live.
  func isGone(within limit: Duration, isVain: Bool = false) async -> Bool {
    guard !isGone, failure != nil, limit > .zero, !isVain, let exit = peer?.whenExited() else { return isGone }
    _ = await exit.value(within: limit)
    return isGone
  }

  /// True when the same process is behind both connections.
  func sharesPeer(with other: Session?) -> Bool {
    guard let peer, let other, other !== self else { return false }
    return other.assumeIsolated { $0.peer === peer }
  }
}

// MARK: - The back-end's own requests

extension Session {
  /// Makes the channel on which the back-end asks, and gives it the other end.
  func openChannel() async throws(NetworkDeviceError) {
    var ends: [CInt] = [-1, -1]
    let result = unsafe netdev_unix_pair(&ends)
    guard result == 0 else {
      throw NetworkDeviceError(.system, "connecting \(name)", offered: "no socket pair: \(ErrorNumber(result))")
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

  /// How much longer than its channel a connection lasts that is about to end: a back-end that exits closes both.
  private static let channelsGrace = Duration.seconds(1)

  /// The session goes on: the back-end can only ask nothing more. Whoever runs the device is told, if it is not just the beginning
  /// of the connection's own end.
  private func loseChannel(_ reason: String) {
    channel = nil
    logger.debug("vhost-user back-end channel over", metadata: ["device": "\(name)", "cause": "\(reason)"])
    deafness = try? loop.makeTimer { [weak self] in self?.assumeIsolated { $0.noteDeafness(reason) } }
    deafness?.schedule(after: Self.channelsGrace)
  }

  private func noteDeafness(_ reason: String) {
    guard failure == nil else { return }
    logger.warning(
      "the back-end's channel is over: what it says of its link is not heard until it connects again",
      metadata: ["device": "\(name)", "cause": "\(reason)"])
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
  /// The configuration is looked at when the control plane comes to it, once however often the back-end says so.
  private func noteConfigChange() {
    guard agreement.protocolFeatures.contains(.config) else { return }
    configHasChanged = true
    onNews()
  }

  /// Whether the configuration has changed since this was asked last.
  func takeConfigChange() -> Bool {
    defer { configHasChanged = false }
    return configHasChanged
  }
}
