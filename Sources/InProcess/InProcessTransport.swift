public import LibeventConcurrency
public import Netdev
internal import Synchronization
public import Virtio
public import VirtioDevice
public import VirtioNet

/// Joins the virtio-net driver to a software device of the same process.
///
/// The ring protocol is the one that an outside device sees; only doorbells and interrupts are short. **Inline**, the
/// engine of a pair takes turns with its driver on the same loop and a doorbell is a function call. On a **loop of its
/// own** it runs beside the driver, on its own thread, and both sides wake each other through eventfds.
public final class InProcessTransport: VirtioTransport {
  /// Where the device's engines run.
  public enum Placement: Sendable, Hashable {
    /// On the loop of the pair's driver.
    case inline
    /// On a loop of its own a pair, pinned to a CPU if one is named.
    case ownLoop(cpu: Int? = nil)
  }

  private let device: VirtioNetDevice
  private let placement: Placement
  private let state = Mutex(State())

  struct State {
    var control: DeviceControl?
    var addresses = AddressPlan()
    var pairs: [InProcessPair] = []
    var controlQueue: InProcessControl?
    /// When the end has to be over.
    var deadline: LoopDeadline?
  }

  /// A transport to `device`, which it owns from here on.
  public init(device: VirtioNetDevice, placement: Placement = .inline) {
    self.device = device
    self.placement = placement
  }

  /// What stands behind the device.
  public var name: String { device.backend.description }

  /// As the device is configured. Without a control virtqueue all pairs that there are are in use.
  public var pairSwitching: FeatureSet.PairSwitching { device.pairSwitching }
}

// MARK: - Agreeing

extension InProcessTransport {
  /// The device tells of changes by asking for attention.
  public func attach(control: DeviceControl) {
    state.withLock { $0.control = control }
    device.setConfigurationLine { control.requestAttention() }
  }

  /// The device is here already.
  public func connect() async throws(NetworkDeviceError) {}

  /// What is behind the device can be lost: an interface is deleted. The engines are of this process: what they may still write
  /// is known.
  public func loss() async -> VirtioLoss? {
    device.loss.map { loss in VirtioLoss(cause: NetworkDeviceError(loss)) { _ in true } }
  }

  /// What the device offers.
  public func offeredFeatures() async throws(NetworkDeviceError) -> FeatureSet { device.offeredFeatures }

  /// The device's limit.
  public func maximumQueueSize() async throws(NetworkDeviceError) -> Int? { device.maximumQueueSize }

  /// Reads the configuration space.
  public func readConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig {
    do {
      return try NetConfig(reading: device, features: offered)
    } catch {
      throw NetworkDeviceError(.broken, "reading the configuration of \(name)", offered: "\(error)")
    }
  }

  /// Tells the device what the driver accepts.
  public func setFeatures(_ features: FeatureSet) async throws(NetworkDeviceError) {
    device.setDriverFeatures(features)
  }

  /// The device's status.
  public func status() async throws(NetworkDeviceError) -> DeviceStatus { device.status }

  /// Writes the status; DRIVER_OK starts the engines, all at the same time.
  public func setStatus(_ status: DeviceStatus) async throws(NetworkDeviceError) {
    device.setStatus(status)
    guard status.contains(.driverOK) else { return }
    let loop = try controlLoop()
    let deadline = LoopDeadline(loop, after: .seconds(5))
    try await prepare(loop, until: deadline)
    let (pairs, control, addresses) = state.withLock { ($0.pairs, $0.controlQueue, $0.addresses) }
    var starts = pairs.map { $0.start(from: loop, sharing: addresses) }
    if let control { starts.append(control.start(sharing: addresses, with: pairs)) }
    for start in starts {
      switch await start.value(within: deadline.remaining) {
      case .value(nil): continue
      case .value(let error?): throw error
      case .timedOut, .cancelled:
        throw NetworkDeviceError(
          .timedOut, "starting \(name)", offered: "its loop did not answer",
          advice: "look for a job that blocks the loop")
      }
    }
  }

  /// Has the back-end do what may block where it holds no loop. One that does not block waits for no other that does.
  private func prepare(_ loop: LoopExecutor, until deadline: LoopDeadline) async throws(NetworkDeviceError) {
    let (device, pairs) = (device, state.withLock { $0.pairs.count })
    let preparation = { @Sendable () -> Result<Void, DeviceError> in
      Result { () throws(DeviceError) in for pair in 0..<pairs { try device.prepare(pair: pair) } }
    }
    guard device.mayBlock else { return try check(preparation()) }
    switch await loop.call(blocking: preparation).value(within: deadline.remaining) {
    case .value(let result): try check(result)
    case .timedOut, .cancelled:
      throw NetworkDeviceError(
        .timedOut, "starting \(name)", offered: "the system did not answer",
        advice: "look for who holds its lock of links")
    }
  }

  private func check(_ preparation: Result<Void, DeviceError>) throws(NetworkDeviceError) {
    if case .failure(let error) = preparation { throw NetworkDeviceError(error, "starting \(name)") }
  }

  private func controlLoop() throws(NetworkDeviceError) -> LoopExecutor {
    guard let control = state.withLock({ $0.control }) else {
      throw NetworkDeviceError(.invalidConfiguration, name, advice: "attach a control first")
    }
    return control.loop
  }

  /// What the device's side of each pair has done.
  public var peerStatistics: [PeerStatistics] { device.statistics.map { PeerStatistics($0) } }

  /// NEEDS_RESET, or a link that changed.
  public func changedConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig? {
    guard !device.status.contains(.needsReset) else {
      throw NetworkDeviceError(
        .broken, name, offered: "the device needs a reset", advice: "close it and open it again")
    }
    return try? await readConfig(offered: offered)
  }
}

// MARK: - Memory and queues

extension InProcessTransport {
  /// Memory of this process, where the device sees it already; kept until the device is quiet, and rings until no queue holds them
  /// either: a loop that was held may be late.
  public func share(_ memory: VirtioMemory) async throws(NetworkDeviceError) -> UInt64 {
    try state.withLock { state throws(NetworkDeviceError) in try state.addresses.share(memory) }
  }

  /// The device begins to look at the queue when the driver says DRIVER_OK.
  public func attachQueue(
    _ queue: VirtioQueuePlacement, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbell {
    if queue.index == device.controlQueueIndex {
      let control = InProcessControl(queue, device: device, loop: loop, onInterrupt: onInterrupt)
      state.withLock { $0.controlQueue = control }
      return control.doorbell
    }
    let known = state.withLock { state in state.pairs.first { $0.index == queue.pair } }
    if let known { return try known.attach(queue, onInterrupt: onInterrupt) }
    let made = try InProcessPair(index: queue.pair, device: device, driverLoop: loop, engines: placement)
    let bell = try made.attach(queue, onInterrupt: onInterrupt)
    state.withLock { $0.pairs.append(made) }
    return bell
  }
}

// MARK: - The end

extension InProcessTransport {
  /// Stops the engines, each on its loop and all at the same time: when that has happened, nothing touches the driver's memory
  /// any more.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    let (pairs, control) = state.withLock { ($0.pairs, $0.controlQueue) }
    // What is left to close by then closes a little later.
    state.withLock { state in
      state.deadline = state.control.map { LoopDeadline($0.loop, after: timeout.bounded + Self.closingTime) }
    }
    guard !pairs.isEmpty else { return device.reset() }
    let loop = try controlLoop()
    let deadline = LoopDeadline(loop, after: timeout)
    for stop in pairs.map({ $0.stop(from: loop) }) + [control?.stop()].compactMap({ $0 }) {
      if case .value = await stop.value(within: deadline.remaining) { continue }
      throw NetworkDeviceError(
        .resetNotConfirmed, "resetting \(name)", offered: "its loop did not answer within \(timeout.inUnits)",
        advice: "look for a job that blocks the loop")
    }
    device.reset()
    state.withLock { state in
      state.pairs = []
      state.controlQueue = nil
    }
  }

  /// How long after the time of the reset the back-end is waited for. With what queues are told, twice a quarter of a second, it
  /// stays below the second that `close` has beside `resetTimeout`.
  private static let closingTime = Duration.milliseconds(250)

  /// Gives back the back-end, and the ring memory if the device is known to be quiet. Waits for the back-end to close until
  /// `closingTime` after the time of the reset.
  public func shutDown() async {
    device.setConfigurationLine(nil)
    await closeDevice()
    let old = state.withLock { state in
      let old = state
      state = State()
      return old
    }
    guard !old.pairs.isEmpty else { return }
    // The pool is kept by whoever made it.
    for piece in old.addresses.pieces where !(piece.memory.owner is PacketPool) { Quarantine.keep(piece.memory.owner) }
    // Their engines are on loops that do not answer: letting go of one here would wait for its thread.
    for pair in old.pairs { Quarantine.keep(pair) }
  }

  private func closeDevice() async {
    let (control, deadline) = state.withLock { ($0.control, $0.deadline) }
    guard let control, device.mayBlock else { return device.close() }
    let closing = control.loop.call(blocking: { [device] in device.close() })
    _ = await closing.value(within: deadline?.remaining ?? Self.closingTime)
  }
}
