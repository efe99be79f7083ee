internal import CNetdevSystem
public import LibeventConcurrency
public import Logging
public import Netdev
internal import PacketFormats
internal import Synchronization
internal import Virtio

/// The virtio-net driver: agrees with a device over any transport and makes its queue pairs (VIRTIO 1.4 §3.1.1, §5.1.5).
public final class VirtioNetDriver: NetworkDriver {
  /// Choices of the program.
  public struct Options: Sendable, Hashable {
    /// Accepts MRG_RXBUF when it is offered.
    public var mergeableBuffers = true
    /// Accepts EVENT_IDX when it is offered.
    public var eventIndex = true
    /// Accepts INDIRECT_DESC when it is offered.
    public var indirect = true
    /// Uses packed rings (RING_PACKED); a device that does not offer them is refused.
    public var packedRings = false
    /// Has the device use buffers in order (IN_ORDER); a device that does not offer that is refused.
    public var inOrder = false
    /// Has the device filter VLANs (CTRL_VLAN); one that does not offer it is refused. It then hands over no frame with a tag whose VLAN it
    /// was not told of, outside promiscuous mode: for that reason it is not accepted unasked.
    public var vlanFilter = false
    /// How long the device may take to answer what it is told by its control virtqueue.
    public var controlTimeout = Duration.seconds(2)

    /// All accepted that is a matter of acceptance; split rings, in any order.
    public init() {}
  }

  let transport: any VirtioTransport
  let options: Options
  let logger: Logger
  let state = Mutex(State())

  /// What is known of the device. Steps come one after the other; the lock is for those that come from elsewhere, `makeQueue`
  /// above all.
  struct State {
    var control: DeviceControl?
    var agreed: Agreed?
    var pool: PacketPool?
    var memory: Memory?
    #if Testing
    /// When the device was there last, for a fault of our own.
    var handshake: UInt64 = 0
    var isFresh: Bool { control.map { $0.loop.now &- handshake < 1_000_000 } ?? false }
    #endif
    var pairs: [PairReference] = []
    var saysLinkIsUp = true
    /// Losses so far, in this life.
    var losses = 0
    /// The loss that has not been made good: its device knows the buffers in the rings.
    var loss: VirtioLoss?
    var quarantines: [Quarantined] = []
    /// Where one was agreed on, from the start of the device on.
    var controlQueue: (any ControlQueue)?
    var settings = ControlSettings()
  }

  /// What was agreed with the device; fixed before the first ring exists.
  struct Agreed: Sendable {
    var features: FeatureSet
    var layout: RingLayout
    var mtu: Int
    var pairs: Int
    /// The control virtqueue, where there is one.
    var control: ControlPlace?

    /// How each pair's piece of the ring memory is laid out.
    var memoryMap: PairMemoryMap { PairMemoryMap(layout: layout, indirect: features.contains(.indirectDesc)) }
    /// Bytes of the ring memory: the pairs, then the control virtqueue.
    var ringBytes: Int { pairs * memoryMap.totalBytes + (control?.map.totalBytes ?? 0) }
  }

  /// What the device is shown.
  struct Memory: Sendable {
    /// Address of the pool's first byte, as the device knows it.
    var poolAddress: UInt64
    /// The rings of all pairs in one region: some transports have few.
    var rings: SharedRings
  }

  /// A driver for the device behind `transport`.
  ///
  /// - Parameters:
  ///   - transport: the device; this driver alone uses it from here on.
  ///   - options: what to accept of what the device offers.
  ///   - logger: where it says what was agreed (debug), how a lost device is looked for (debug), and what it keeps in
  ///     quarantine (warning).
  public init(
    transport: any VirtioTransport, options: Options = Options(), logger: Logger = Logger(label: "netdev.virtio")
  ) {
    self.transport = transport
    self.options = options
    self.logger = logger.aside
  }

  /// The features that this driver understands. CTRL_VQ is one of them where the device serves it.
  private var supported: FeatureSet {
    var set: FeatureSet = [.version1, .mac, .status, .mtu, .mq, .speedDuplex]
    if options.mergeableBuffers { set.insert(.mrgRxbuf) }
    if options.eventIndex { set.insert(.eventIndex) }
    if options.indirect { set.insert(.indirectDesc) }
    if transport.pairSwitching == .controlQueue {
      set.formUnion([.ctrlVQ, .ctrlRX, .ctrlRXExtra, .ctrlMACAddress, .guestAnnounce])
    }
    return set.union(required)
  }

  /// The features that the program has asked for, or the way to the device: the device has them, or is not for it.
  private var required: FeatureSet {
    var set = transport.requiredFeatures
    if options.packedRings { set.insert(.ringPacked) }
    if options.inOrder { set.insert(.inOrder) }
    if options.vlanFilter { set.insert(.ctrlVLAN) }
    return set
  }
}

// MARK: - Agreeing

extension VirtioNetDriver {
  /// What the device says that it has done.
  public var peerStatistics: [PeerStatistics] { transport.peerStatistics }

  /// Tells the transport too.
  public func attach(control: DeviceControl) {
    state.withLock { $0.control = control }
    transport.attach(control: control)
  }

  /// Resets the device, agrees on features and sizes, and finds out what it is.
  public func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    try await setUp { [self] () async throws(NetworkDeviceError) in
      let (features, config) = try await agree(on: nil)
      let pairs = try queuePairs(request.queuePairs, try await offeredPairs(config, features))
      let maximumSize = try await transport.maximumQueueSize()
      let layout = try queueSize(request.queueSize, maximumSize, RingFormat(features))
      let mtu = config.mtu.map { Int($0) } ?? 1500
      var agreed = Agreed(features: features, layout: layout, mtu: mtu, pairs: pairs)
      agreed.control = try ControlPlace(
        features, config, queues: try await transport.maximumQueues(), maximumSize: maximumSize)
      state.withLock { [agreed] in $0.agreed = agreed }
      // Without mergeable buffers a frame must fit one buffer (VIRTIO 1.4 §5.1.9.3), its VLAN tags included; with them any
      // size will do, but one buffer for an ordinary frame is cheapest.
      let bufferSize = FrameLimit(mtu: features.contains(.mrgRxbuf) ? min(mtu, 1500) : max(mtu, 1500)).longest
      return NetworkDeviceInformation(
        name: transport.name, hardwareAddress: config.macAddress,
        mtu: mtu, queuePairs: pairs,
        queueSize: Int(layout.size), headroom: VirtioNetHeader.size, receiveBufferSize: bufferSize)
    }
  }

  /// The way to every device, the first and those that come back (VIRTIO 1.4 §3.1.1): reached, reset, acknowledged, and then
  /// what `body` agrees on with it.
  func setUp<Result>(
    _ body: () async throws(NetworkDeviceError) -> Result
  ) async throws(NetworkDeviceError) -> Result {
    try await transport.connect()
    // Nothing is in flight yet, which `resetTimeout` is for: here a device has time to answer at all. Who closes meanwhile ends it.
    try await transport.reset(timeout: .seconds(5))
    try await transport.setStatus(.acknowledge)
    try await transport.setStatus([.acknowledge, .driver])
    do throws(NetworkDeviceError) {
      return try await body()
    } catch {
      // The device learns that nobody will drive it (VIRTIO 1.4 §3.1.1).
      try? await transport.setStatus([.acknowledge, .driver, .failed])
      throw error
    }
  }

  /// Features, and the configuration that they let us read.
  ///
  /// - Parameter known: what was agreed before and must be agreed again; nil takes all of the offer that is understood.
  func agree(on known: FeatureSet?) async throws(NetworkDeviceError) -> (FeatureSet, NetConfig) {
    let offered = try await transport.offeredFeatures()
    if let known, !offered.contains(known) { throw lacking("the features \(known.subtracting(offered))") }
    let features = if let known { known } else { try choose(from: offered) }
    try await transport.setFeatures(features)
    let wanted: DeviceStatus = [.acknowledge, .driver, .featuresOK]
    try await transport.setStatus(wanted)
    guard try await transport.status().contains(.featuresOK) else {
      throw NetworkDeviceError(
        .unsupported, "open \(transport.name)", offered: "the device refused the features \(features)",
        advice: "turn some of them off in the driver's options")
    }
    let config = try await transport.readConfig(offered: features)
    noteStatus(config, features)
    return (features, config)
  }

  private func choose(from offered: FeatureSet) throws(NetworkDeviceError) -> FeatureSet {
    guard offered.contains(.version1) else {
      throw NetworkDeviceError(
        .unsupported, "open \(transport.name)", offered: "a legacy device without VERSION_1",
        advice: "use a device of VIRTIO 1.0 or later")
    }
    let features = offered.intersection(supported).droppingDependents(switching: transport.pairSwitching)
    // Also what is offered without what it needs is not there.
    guard features.contains(required) else {
      throw NetworkDeviceError(
        .unsupported, "open \(transport.name)",
        offered: "a device without \(required.subtracting(features)), which is needed or was asked for",
        advice: "configure the device for it, or ask for less")
    }
    logger.debug(
      "features",
      metadata: ["device": "\(transport.name)", "offered": "\(offered)", "accepted": "\(features)"])
    return features
  }

  /// The device's own word on the link, without STATUS it is up, and whether it wants an announcement (VIRTIO 1.4 §5.1.4).
  func noteStatus(_ config: NetConfig, _ features: FeatureSet) {
    #if Testing
    if unsafe netdev_fault_is_planted("unheard-link") { return }
    #endif
    let isUp = config.status?.contains(.linkUp) ?? true
    let (control, isNews) = state.withLock { state in
      defer { state.saysLinkIsUp = isUp }
      return (state.control, state.saysLinkIsUp != isUp)
    }
    let linkDown = NetworkDeviceError(.linkDown, transport.name, offered: "the device says that its link is down")
    if isNews { control?.noteLink(isUp ? .up : .down(cause: linkDown)) }
    // Behind it: whoever announces himself knows of the link.
    guard features.contains(.guestAnnounce), let status = config.status else { return }
    control?.noteAnnouncement(isWanted: status.contains(.announce))
  }

  /// As many pairs as device and transport both have.
  func offeredPairs(_ config: NetConfig, _ features: FeatureSet) async throws(NetworkDeviceError) -> Int {
    let pairs = features.contains(.mq) ? Int(config.maximumPairs ?? 1) : 1
    guard let queues = try await transport.maximumQueues() else { return pairs }
    return min(pairs, queues / 2)
  }

  private func queuePairs(_ requested: Int?, _ offered: Int) throws(NetworkDeviceError) -> Int {
    let wanted = requested ?? 1
    guard wanted >= 1, wanted <= offered else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open \(transport.name)",
        offered: "\(wanted) queue pairs were asked for, the device offers \(offered)",
        advice: wanted < 1 ? "ask for one at least" : "ask for fewer, or configure the device for more")
    }
    return wanted
  }

  private func queueSize(
    _ requested: Int?, _ maximum: Int?, _ format: RingFormat
  ) throws(NetworkDeviceError) -> RingLayout {
    // A device may offer any number; of it the format can use what `RingLayout` allows (VIRTIO 1.4 §2.7, §2.8.10.1).
    let size = requested ?? RingLayout.largestSize(format, upTo: min(maximum ?? 256, 256))
    guard size <= maximum ?? 1024, let layout = try? RingLayout(format, size: size) else {
      let sizes = format == .split ? "a split ring has a power of two of descriptors, here" : "a packed ring has"
      throw NetworkDeviceError(
        .invalidConfiguration, "open \(transport.name)", offered: "a queue size of \(size)",
        advice: "\(sizes) up to \(maximum ?? 1024)")
    }
    return layout
  }
}

// MARK: - Memory and queues

extension VirtioNetDriver {
  /// Shows the pool's memory to the device, and that of the rings.
  public func attach(pool: PacketPool) async throws(NetworkDeviceError) {
    let agreed = try agreed("attach")
    let memory = try await share(pool, agreed)
    state.withLock { state in
      state.pool = pool
      state.memory = memory
    }
  }

  /// Shows the pool to the device, and new memory for the rings of all pairs.
  func share(_ pool: PacketPool, _ agreed: Agreed) async throws(NetworkDeviceError) -> Memory {
    let address = try await transport.share(VirtioMemory(pool))
    let rings = try transport.makeRingMemory(bytes: agreed.ringBytes)
    return Memory(poolAddress: address, rings: SharedRings(rings, at: try await transport.share(rings)))
  }

  private func agreed(_ operation: String) throws(NetworkDeviceError) -> Agreed {
    guard let agreed = state.withLock({ $0.agreed }) else {
      throw NetworkDeviceError(.invalidConfiguration, operation, advice: "call start first")
    }
    return agreed
  }

  /// Lays out a pair's rings and hands them to the device.
  public func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let agreed = try agreed("makeQueue")
    guard let memory = state.withLock({ $0.memory }), (0..<agreed.pairs).contains(index) else {
      throw NetworkDeviceError(
        .invalidConfiguration, "makeQueue", offered: "queue pair \(index) of \(agreed.pairs)",
        advice: "attach a pool first")
    }
    let parts = PairParts(
      index: index, agreed: agreed, memory: memory, slots: slots, signal: signal, transport: transport, loop: loop)
    switch agreed.layout.format {
    case .split:
      let pair = try VirtioQueuePair<SplitDriverRing>(parts, logger)
      note(pair, loop)
      return SplitQueuePair(pair)
    case .packed:
      let pair = try VirtioQueuePair<PackedDriverRing>(parts, logger)
      note(pair, loop)
      return PackedQueuePair(pair)
    }
  }

  private func note(_ pair: any PairControl, _ loop: LoopExecutor) {
    state.withLock { $0.pairs.append(PairReference(pair: pair, loop: loop)) }
  }

  /// DRIVER_OK; from here on doorbells ring (VIRTIO 1.4 §3.1.1: never before).
  public func activate() async throws(NetworkDeviceError) {
    let agreed = try agreed("activate")
    if let memory = state.withLock({ $0.memory }) { try await makeControlQueue(agreed, memory) }
    try await transport.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    try await beginControl(agreed)
    #if Testing
    state.withLock { $0.handshake = $0.control?.loop.now ?? 0 }
    if unsafe netdev_fault_is_planted("start-crosses-reset") {
      // Nobody waits for the start, and the reset does not know of it.
      let loop = state.withLock { $0.control?.loop }
      Task {
        await loop?.sleep(for: .microseconds(500))
        _ = await tell { $0.goLive() }
      }
      return
    }
    #endif
    _ = await tell { $0.goLive() }
  }

  /// Resets the device; no doorbell rings any more.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    guard let control = state.withLock({ $0.control }) else { return }
    _ = await tell { $0.goQuiet() }
    await endControl(NetworkDeviceError(.closed, transport.name, offered: "it is reset"))
    let deadline = LoopDeadline(control.loop, after: timeout)
    try await transport.reset(timeout: timeout)
    await endQuarantines()
    // Between two devices it is the lost one that knows the buffers.
    guard let loss = state.withLock({ $0.loss }) else { return }
    guard await loss.isGone(deadline.remaining) else {
      throw NetworkDeviceError(
        .resetNotConfirmed, "resetting \(transport.name)", offered: "\(loss.cause)",
        advice: "what was there before may still write to this device's buffers; end its process")
    }
  }

  /// Lets go of device and rings.
  public func shutDown() async {
    await transport.shutDown()
    let old = state.withLock { state in
      let old = state
      state = State()
      return old
    }
    noteLostForGood(old.quarantines)
    // Each goes on its own loop: it may be the last reference to that.
    for reference in old.pairs { reference.loop.execute { withExtendedLifetime(reference) {} } }
  }

  /// How long the pairs' loops are waited for that are told something which waits there in its order anyway.
  private static let tellingTime = Duration.milliseconds(250)

  /// Tells all pairs at the same time, each on its loop; the answers of those that answered in time.
  func tell<Answer: Sendable>(
    within limit: Duration = tellingTime, _ body: @escaping @Sendable (any PairControl) -> Answer
  ) async -> [Answer] {
    let (control, pairs) = state.withLock { ($0.control, $0.pairs) }
    guard let control else { return [] }
    let deadline = LoopDeadline(control.loop, after: limit)
    let calls = pairs.map { reference in control.loop.call(on: reference.loop) { body(reference.pair) } }
    var answers: [Answer] = []
    for call in calls {
      if case .value(let answer) = await call.value(within: deadline.remaining) { answers.append(answer) }
    }
    return answers
  }
}
