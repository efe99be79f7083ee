internal import CNetdevSystem
public import LibeventConcurrency
internal import Logging
public import Netdev
internal import PacketFormats
internal import Synchronization
public import Virtio
public import VirtioNet

/// Reaches a virtio-net device behind a vhost-user socket: a switch, or any other program that plays the device.
///
/// The front-end of the vhost-user document, in both socket roles. The control socket lives on the device's control loop, where
/// every message has a time-out; doorbells and interrupts are eventfds on the queues' loops. The back-end is shown the
/// pool's memory and a memfd with the rings, by addresses that say nothing about this process.
public final class VhostUserTransport: VirtioTransport {
  let options: Options
  let state = Mutex(State())

  /// Changed by the control plane alone, apart from the queues' wires; the lock is for those.
  struct State {
    var control: DeviceControl?
    var watch: KickWatch?
    var listener: Listener?
    var session: Session?
    var status = DeviceStatus()
    var addresses = AddressPlan()
    var wires: [QueueWires] = []
    /// The last session that was driven: the buffers in the driver's rings are known to its back-end.
    var driven: Session?
    /// Earlier sessions, while it is not known that the processes behind them are gone.
    var lost: [Session] = []
    var mtu: UInt16?
    /// Queue pairs in use, where the program has asked for fewer than there are.
    var activePairs = Int.max

    /// All of them, each once.
    var sessions: [Session] {
      lost + [driven, session === driven ? nil : session].compactMap { $0 }
    }
  }

  /// A transport to whatever is, or will be, at the other end of the socket.
  ///
  /// - Throws: `invalidConfiguration` for a path or an MTU that cannot be.
  public init(_ options: Options) throws(NetworkDeviceError) {
    func refuse(_ what: String, _ advice: String) -> NetworkDeviceError {
      NetworkDeviceError(.invalidConfiguration, "vhost-user", offered: what, advice: advice)
    }
    let length = options.path.utf8.count
    guard length >= 1, length <= Int(NETDEV_UNIX_PATH), !options.path.utf8.contains(0) else {
      throw refuse("a socket path of \(length) bytes", "1 to \(NETDEV_UNIX_PATH) are possible")
    }
    if let mtu = options.mtu, !(68...9216).contains(mtu) { throw refuse("an MTU of \(mtu)", "68 to 9216 are possible") }
    var options = options
    options.logger = options.logger.aside
    self.options = options
  }

  /// The URL without its options.
  public var name: String { "vhost-user:\(options.path)" }

  /// As in the options: no back-end's number of pairs can be believed.
  public var serviceTimeout: Duration? { options.serviceTimeout }

  /// As in the options.
  public var recovery: VirtioRecovery? { options.recovery }

  /// Pairs are switched by messages: there is no control virtqueue.
  public var pairSwitching: FeatureSet.PairSwitching { .transport }
}

// MARK: - Reaching it

extension VhostUserTransport {
  /// The loop of everything here.
  public func attach(control: DeviceControl) { state.withLock { $0.control = control } }

  /// Connects, or waits for the back-end to connect, and says the first words.
  ///
  /// A back-end that does not connect, or none that keeps to the protocol, is waited for until `connectTimeout`; each word has
  /// `requestTimeout`. A cancelled task stops waiting.
  public func connect() async throws(NetworkDeviceError) {
    let control = try attachedControl()
    await retire()
    try await startWatch(control.loop)
    switch options.role {
    case .connect:
      let descriptor = unsafe netdev_unix_connect(options.path)
      guard descriptor >= 0 else {
        throw NetworkDeviceError(socket: options.path, errno: -descriptor, listening: false)
      }
      try await begin(descriptor, control, patience: nil)
    case .listen: try await awaitBackend(control)
    }
  }

  /// Once: it serves all connections.
  private func startWatch(_ loop: LoopExecutor) async throws(NetworkDeviceError) {
    if state.withLock({ $0.watch }) != nil { return }
    let watch = try KickWatch(loop: loop)
    try await watch.start()
    state.withLock { $0.watch = watch }
  }

  private func attachedControl() throws(NetworkDeviceError) -> DeviceControl {
    guard let control = state.withLock({ $0.control }) else {
      throw NetworkDeviceError(.invalidConfiguration, "open \(name)", advice: "attach a control first")
    }
    return control
  }

  /// How long nobody looks whether the listener's file is still there: whoever clears a directory of sockets leaves a listener that
  /// nobody finds.
  private static let pathPatience = Duration.seconds(5)

  /// How long a stranger who connects and says nothing keeps a back-end waiting.
  private static let strangersPatience = Duration.seconds(5)

  /// Strangers come and go, a health check or somebody's probe for a stale socket: who hangs up or does not speak the protocol is
  /// none. Whoever agrees is the back-end.
  private func awaitBackend(_ control: DeviceControl) async throws(NetworkDeviceError) {
    let listener = state.withLock { state in
      let listener =
        state.listener ?? Listener(loop: control.loop, path: options.path, name: name, logger: options.logger)
      state.listener = listener
      return listener
    }
    let deadline = LoopDeadline(control.loop, after: options.connectTimeout)
    var last: NetworkDeviceError?
    while true {
      try await listener.open()
      await listener.announce()
      // Somebody in the backlog is there before any time-out: strangers do not outlast the deadline.
      let patience = min(deadline.remaining, Self.pathPatience)
      switch patience > .zero ? await listener.next(within: patience) : .timedOut {
      case .cancelled: throw .waitCancelled
      case .timedOut where deadline.remaining > .zero: continue
      case .timedOut:
        throw NetworkDeviceError(
          .timedOut, "open \(name)",
          offered: last.map { "no back-end connected; of who did, the last: \($0)" } ?? "no back-end connected",
          advice: "start the switch with a client port on \(options.path)")
      case .value(let descriptor):
        do throws(NetworkDeviceError) {
          try await begin(descriptor, control, patience: min(options.requestTimeout, Self.strangersPatience))
          return await listener.found()
        } catch {
          // Whoever has agreed on something and lacks what we need is a back-end.
          guard [.broken, .timedOut].contains(error.code) else { throw error }
          options.logger.debug("vhost-user stranger", metadata: ["device": "\(name)", "cause": "\(error)"])
          last = error
          await drop()
        }
      }
    }
  }

  private func begin(
    _ descriptor: CInt, _ control: DeviceControl, patience: Duration?
  ) async throws(NetworkDeviceError) {
    let session = Session(
      loop: control.loop, name: name, logger: options.logger, requestTimeout: options.requestTimeout,
      onNews: { control.requestAttention() })
    let others = state.withLock { state in
      let others = state.sessions
      state.session = session
      return others
    }
    try await session.open(descriptor: descriptor, others: others)
    try await session.agree(patience: patience)
  }

  /// Lets go of the present session, which was never driven.
  private func drop() async {
    let session = state.withLock { state in state.session.take() }
    await session?.shutDown()
  }

  func current() throws(NetworkDeviceError) -> Session {
    guard let session = state.withLock({ $0.session }) else {
      throw NetworkDeviceError(.closed, name, offered: "it is not connected")
    }
    return session
  }

  /// What belongs to a device that was: memory, wires, and sessions that are over. The driven ones stay until the processes behind
  /// them are gone.
  private func retire() async {
    let old = state.withLock { state in
      let old = state
      state.wires = []
      state.addresses = AddressPlan()
      state.status = []
      state.session = nil
      return old
    }
    for wires in old.wires { wires.beginDisconnecting() }
    if let session = old.session, session !== old.driven { await session.shutDown() }
    var left: [Session] = []
    for session in old.lost where session !== old.driven {
      if await session.isGone { await session.shutDown() } else { left.append(session) }
    }
    if let driven = old.driven { left.append(driven) }
    state.withLock { $0.lost = left }
  }

  /// The connection to the back-end that was driven last is over.
  public func loss() async -> VirtioLoss? {
    guard let driven = state.withLock({ $0.driven }), let cause = await driven.failure else { return nil }
    #if Testing
    if unsafe netdev_fault_is_planted("unheard-loss"), await driven.isLostAtOnce { return nil }
    #endif
    return VirtioLoss(cause: cause) { [weak self] limit in
      // Where the same process has connected again there is nothing to wait for.
      let present = self?.state.withLock { $0.session }
      return await driven.isGone(within: limit, isVain: driven.sharesPeer(with: present))
    }
  }
}

// MARK: - Memory and queues

extension VhostUserTransport {
  /// Memory is shown when the device is started, all of it together.
  public func share(_ memory: VirtioMemory) async throws(NetworkDeviceError) -> UInt64 {
    try state.withLock { state throws(NetworkDeviceError) in try state.addresses.share(memory) }
  }

  /// A memfd of its own.
  public func makeRingMemory(bytes: Int) throws(NetworkDeviceError) -> VirtioMemory {
    try RingFile(bytes: bytes).memory
  }

  /// Makes the queue's eventfds; the back-end is told when the driver says DRIVER_OK.
  public func attachQueue(
    _ queue: VirtioQueuePlacement, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbell {
    let (watch, sibling) = state.withLock { state in
      (state.watch, state.wires.first { $0.placement.index == queue.sibling })
    }
    guard let watch else { throw NetworkDeviceError(.closed, name, offered: "it is not connected") }
    guard watch.loop !== loop else {
      throw NetworkDeviceError(
        .invalidConfiguration, name, offered: "a control loop that is a queue's loop too",
        advice: "a back-end could hold both: give the control plane a loop of its own")
    }
    let signals =
      if let shared = sibling?.signals.share() {
        shared
      } else {
        try PairSignals(pair: queue.pair, name: name, loop: loop, onInterrupt: onInterrupt, onFailure: onFailure)
      }
    let wires = try QueueWires(queue, name: name, isPolled: !options.kicks, watch: watch, signals: signals)
    state.withLock { state in
      // An earlier attempt's, made late: the pair has let go of them.
      state.wires.removeAll { $0.placement.index == queue.index }
      state.wires.append(wires)
    }
    return wires
  }
}

// MARK: - Telling it

extension VhostUserTransport {
  /// Queue pairs are switched by SET_VRING_ENABLE; for anything else the protocol has no message.
  public func perform(_ command: ControlCommand) async throws(NetworkDeviceError) {
    guard case .setActiveQueuePairs(let count) = command else {
      throw .cannotBeTold(command, "\(name) is reached by vhost-user, which has no message for it")
    }
    try await (try current()).enable(pairs: count, for: command)
    state.withLock { $0.activePairs = count }
  }
}

// MARK: - The end

extension VhostUserTransport {
  /// Stops the rings: the answers say that the back-end is done with them. Without a connection the exit of the process
  /// behind it says so, and nothing else does.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    guard let session = state.withLock({ $0.session ?? $0.driven }) else { return }
    let deadline = LoopDeadline(session.loop, after: timeout)
    do throws(NetworkDeviceError) {
      try await session.stop(within: timeout)
    } catch {
      guard await !session.startedRings.isEmpty else { return }
      guard await session.isGone(within: deadline.remaining) else {
        throw NetworkDeviceError(
          .resetNotConfirmed, "resetting \(name)", offered: "\(error)",
          advice: "the process behind the socket may still write to this device's buffers; end it")
      }
    }
  }

  /// Closes the connection.
  public func shutDown() async {
    let old = state.withLock { state in
      let old = state
      state = State()
      return old
    }
    for wires in old.wires { wires.beginDisconnecting() }
    await old.watch?.stop()
    for session in old.sessions { await session.shutDown() }
    await old.listener?.close()
  }
}
