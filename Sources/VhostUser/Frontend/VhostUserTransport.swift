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
/// The front-end of the vhost-user document, in both socket roles. The control socket lives on a loop of the transport's own,
/// where every message has a time-out; doorbells and interrupts are eventfds on the queues' loops. The back-end is shown the
/// pool's memory and a memfd with the rings, by addresses that say nothing about this process.
public final class VhostUserTransport: VirtioTransport {
  private let options: Options
  private let state = Mutex(State())

  private struct State {
    var loop: LoopExecutor?
    var watch: KickWatch?
    var listener: Listener?
    var session: Session?
    var status = DeviceStatus()
    var pools: [PacketPool] = []
    var rings: [RingFile] = []
    var wires: [PairWires] = []
    /// The last session that was driven: the buffers in the driver's rings are known to its back-end.
    var driven: Session?
    /// Earlier sessions, while it is not known that the processes behind them are gone.
    var lost: [Session] = []
    var onLoss: (@Sendable (VirtioLoss) -> Void)?
    var onConfig: (@Sendable (NetConfig) -> Void)?
    /// What the driver reads the configuration for.
    var accepted = FeatureSet()
    var mtu: UInt16?
  }

  /// Where the rings begin in the device's address space; pools each have 2⁴⁰ bytes of their own above.
  private static let ringAddress: UInt64 = 1 << 32
  private static let ringSpacing: UInt64 = 1 << 28
  private static let poolSpacing: UInt64 = 1 << 40

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
  /// Connects, or waits for the back-end to connect, and says the first words.
  public func connect() async throws(NetworkDeviceError) {
    let (loop, old) = try prepare()
    for wires in old.wires { await wires.disconnect() }
    await retire(old)
    try await startWatch(loop)
    let descriptor = try await dial(loop)
    let session = Session(
      loop: loop, name: name, logger: options.logger, requestTimeout: options.requestTimeout,
      onLoss: { [weak self] session, cause in self?.noteLoss(session, cause) },
      onConfigChange: { [weak self] session in await self?.noteConfigChange(session) })
    state.withLock { $0.session = session }
    let result = await withTaskCancellationHandler { () async -> Result<Void, NetworkDeviceError> in
      do throws(NetworkDeviceError) {
        try await session.open(descriptor: descriptor)
        try await session.agree()
        return .success(())
      } catch {
        return .failure(error)
      }
    } onCancel: {
      Task { await session.fail(.openCancelled) }
    }
    try result.get()
  }

  private func prepare() throws(NetworkDeviceError) -> (loop: LoopExecutor, old: State) {
    let old = state.withLock { state in
      let old = state
      state.wires = []
      state.rings = []
      state.status = []
      return old
    }
    if let loop = old.loop { return (loop, old) }
    do throws(LoopError) {
      let loop = try LoopExecutor(name: "vhost-user")
      state.withLock { $0.loop = loop }
      return (loop, old)
    } catch {
      throw NetworkDeviceError(.system, "open \(name)", offered: "\(error)")
    }
  }

  /// Once: it serves all connections.
  private func startWatch(_ loop: LoopExecutor) async throws(NetworkDeviceError) {
    if state.withLock({ $0.watch }) != nil { return }
    let watch = try KickWatch(loop: loop)
    try await watch.start()
    state.withLock { $0.watch = watch }
  }

  private func dial(_ loop: LoopExecutor) async throws(NetworkDeviceError) -> CInt {
    switch options.role {
    case .connect:
      let descriptor = unsafe netdev_unix_connect(options.path)
      guard descriptor >= 0 else {
        throw NetworkDeviceError(socket: options.path, errno: -descriptor, listening: false)
      }
      return descriptor
    case .listen:
      let listener = state.withLock { state in
        let listener =
          state.listener ?? Listener(loop: loop, path: options.path, name: name, logger: options.logger)
        state.listener = listener
        return listener
      }
      try await listener.open()
      return try await listener.next(within: options.connectTimeout)
    }
  }

  private func current() throws(NetworkDeviceError) -> Session {
    guard let session = state.withLock({ $0.session }) else {
      throw NetworkDeviceError(.closed, name, offered: "it is not connected")
    }
    return session
  }

  /// Sessions that are over: the driven ones stay until their processes are gone.
  private func retire(_ old: State) async {
    if let session = old.session, session !== old.driven { await session.shutDown() }
    var left: [Session] = []
    for session in old.lost where session !== old.driven {
      if await session.isGone { await session.shutDown() } else { left.append(session) }
    }
    if let driven = old.driven { left.append(driven) }
    state.withLock { state in
      state.session = nil
      state.lost = left
    }
  }

  private func noteLoss(_ session: Session, _ cause: NetworkDeviceError) {
    let onLoss = state.withLock { $0.onLoss }
    onLoss?(VirtioLoss(cause: cause) { limit in await session.isGone(within: limit) })
  }

  /// Tells of back-ends that went away while they were driven.
  public func watchLoss(_ onLoss: @escaping @Sendable (VirtioLoss) -> Void) { state.withLock { $0.onLoss = onLoss } }
}

// MARK: - Agreeing

extension VhostUserTransport {
  /// What needs a control virtqueue, which no vhost-user back-end serves although some claim to.
  private static let controlFeatures: FeatureSet = [
    .ctrlVQ, .ctrlRX, .ctrlVLAN, .ctrlRXExtra, .guestAnnounce, .ctrlMACAddress, .ctrlGuestOffloads, .rss, .hashReport,
    .rssContext, .notfCoal, .vqNotfCoal,
  ]

  /// What the back-end offers, and what the front-end adds: an address and a link.
  public func offeredFeatures() async throws(NetworkDeviceError) -> FeatureSet {
    let agreement = await (try current()).agreement
    var offered = agreement.offered.subtracting(.vhostOnly).subtracting(Self.controlFeatures)
    let hasConfig = agreement.protocolFeatures.contains(.config)
    offered.formUnion([.mac, .status])
    if agreement.queuePairs < 2 { offered.remove(.mq) }
    if options.mtu == nil, !hasConfig { offered.remove(.mtu) }
    if !hasConfig { offered.remove(.speedDuplex) }
    return offered
  }

  /// A back-end has no way to tell.
  public func maximumQueueSize() async throws(NetworkDeviceError) -> Int? { nil }

  /// The back-end's configuration where it has one, completed by what the front-end knows.
  public func readConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig {
    let session = try current()
    let agreement = await session.agreement
    let theirs = offered.intersection(agreement.offered)
    var config = NetConfig()
    if let bytes = try await session.config(for: theirs) {
      do {
        config = try NetConfig(reading: CopiedConfig(bytes), features: theirs)
      } catch {
        throw NetworkDeviceError(.broken, "GET_CONFIG to \(name)", offered: "\(error)")
      }
    }
    if let address = options.hardwareAddress { config.macAddress = NetConfig.MAC(rawValue: address.rawValue) }
    if config.macAddress == nil { config.macAddress = Self.address(for: options.path) }
    if config.status == nil { config.status = .linkUp }
    if offered.contains(.mq) {
      config.maximumPairs = min(config.maximumPairs ?? .max, UInt16(clamping: agreement.queuePairs))
    }
    if let mtu = options.mtu, offered.contains(.mtu) { config.mtu = UInt16(mtu) }
    state.withLock { [config] state in
      state.accepted = offered
      state.mtu = config.mtu
    }
    return config
  }

  /// The back-end says that its configuration has changed.
  private func noteConfigChange(_ session: Session) async {
    let (isCurrent, accepted, mtu, onConfig) = state.withLock { state in
      (state.session === session, state.accepted, state.mtu, state.onConfig)
    }
    guard isCurrent else { return }
    do throws(NetworkDeviceError) {
      let config = try await readConfig(offered: accepted)
      if config.mtu != mtu {
        // Buffers and rings were made for the first one.
        options.logger.notice(
          "the back-end's MTU is now \(config.mtu ?? 0); open the device anew to use it",
          metadata: ["device": "\(name)"])
      }
      onConfig?(config)
    } catch {
      options.logger.notice(
        "the changed configuration cannot be used", metadata: ["device": "\(name)", "cause": "\(error)"])
    }
  }

  /// Tells of configurations that the back-end announces while the protocol knows CONFIG.
  public func watchConfig(_ onChange: @escaping @Sendable (NetConfig) -> Void) {
    state.withLock { $0.onConfig = onChange }
  }

  /// A locally administered address that is the same whenever the path is.
  private static func address(for path: String) -> NetConfig.MAC {
    // FNV-1a: any hash will do that does not change from run to run.
    let hash = path.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
    return NetConfig.MAC(rawValue: 0x02_00_00_00_00_00 | hash & 0x00_ff_ff_ff_ff_ff)
  }

  /// Tells the back-end what the driver accepts.
  public func setFeatures(_ features: FeatureSet) async throws(NetworkDeviceError) {
    try await (try current()).setFeatures(features, mtu: options.mtu)
  }

  /// The back-end's status, or what the driver wrote where the back-end has none.
  public func status() async throws(NetworkDeviceError) -> DeviceStatus {
    let written = state.withLock { $0.status }
    return try await (try current()).status() ?? written
  }

  /// Writes the status; DRIVER_OK shows the memory and starts the rings.
  public func setStatus(_ status: DeviceStatus) async throws(NetworkDeviceError) {
    let session = try current()
    state.withLock { $0.status = status }
    guard status.contains(.driverOK) else { return try await session.setStatus(status) }
    let (regions, wires) = state.withLock { (Self.regions($0), $0.wires) }
    try await session.share(regions)
    try await session.start(wires.flatMap { $0.rings })
    state.withLock { $0.driven = session }
  }

  private static func regions(_ state: State) -> [MemoryRegion] {
    var regions: [MemoryRegion] = []
    for (position, pool) in state.pools.enumerated() {
      // Whole pages: the file has them, and back-ends map nothing less.
      let size = UInt64((pool.length + 4095) & ~4095)
      regions.append(
        MemoryRegion(
          address: UInt64(position + 1) * poolSpacing, size: size, fileOffset: 0, descriptor: pool.descriptor))
    }
    for (position, rings) in state.rings.enumerated() {
      regions.append(
        MemoryRegion(
          address: ringAddress + UInt64(position) * ringSpacing, size: UInt64(rings.length), fileOffset: 0,
          descriptor: rings.descriptor))
    }
    return regions
  }
}

// MARK: - Memory and queues

extension VhostUserTransport {
  /// The pool is shown with the rings, when the device is started.
  public func share(_ pool: PacketPool) async throws(NetworkDeviceError) -> UInt64 {
    state.withLock { state in
      let position = state.pools.firstIndex { $0 === pool } ?? state.pools.count
      if position == state.pools.count { state.pools.append(pool) }
      return UInt64(position + 1) * Self.poolSpacing
    }
  }

  /// A memfd of its own.
  public func makeRingMemory(bytes: Int) throws(NetworkDeviceError) -> SharedRingMemory {
    guard bytes <= Int(Self.ringSpacing) else {
      throw NetworkDeviceError(.outOfMemory, "making rings", offered: "\(bytes) bytes", advice: "use smaller queues")
    }
    let file = try RingFile(bytes: bytes)
    let position = state.withLock { state in
      state.rings.append(file)
      return state.rings.count - 1
    }
    return unsafe SharedRingMemory(
      pointer: file.pointer, address: Self.ringAddress + UInt64(position) * Self.ringSpacing, length: file.length,
      owner: file)
  }

  /// Makes the pair's eventfds; the back-end is told when the driver says DRIVER_OK.
  public func attachPair(
    _ pair: VirtioPairPlacement, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbells {
    guard let watch = state.withLock({ $0.watch }) else {
      throw NetworkDeviceError(.closed, name, offered: "it is not connected")
    }
    let wires = try PairWires(
      pair, name: name, isPolled: !options.kicks, loop: loop, watch: watch, onInterrupt: onInterrupt,
      onFailure: onFailure)
    state.withLock { $0.wires.append(wires) }
    return wires
  }
}

// MARK: - The end

extension VhostUserTransport {
  /// Stops the rings: the answers say that the back-end is done with them. Without a connection the exit of the process
  /// behind it says so, and nothing else does.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    let deadline = ContinuousClock.now + timeout
    let (session, driven, wires) = state.withLock { ($0.session, $0.driven, $0.wires) }
    if let session { try await stop(session, deadline) }
    // Between two connections it is the lost back-end that knows the buffers.
    if let driven, driven !== session { try await stop(driven, deadline) }
    for wires in wires { await wires.disconnect() }
  }

  private func stop(_ session: Session, _ deadline: ContinuousClock.Instant) async throws(NetworkDeviceError) {
    do throws(NetworkDeviceError) {
      try await session.stop(within: deadline - ContinuousClock.now)
    } catch {
      guard await !session.startedRings.isEmpty else { return }
      guard await session.isGone(within: deadline - ContinuousClock.now) else {
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
    for wires in old.wires { await wires.disconnect() }
    await old.watch?.stop()
    for session in old.lost + [old.driven, old.session].compactMap({ $0 }) { await session.shutDown() }
    await old.listener?.close()
  }
}
