public import LibeventConcurrency
public import Netdev
internal import Synchronization
public import Virtio
public import VirtioNet

/// A virtio-net device that does what a test tells it, honest or not: the other side of `VirtioNetDriver`.
///
/// ```swift
/// let lying = LyingDevice()
/// let device = try await NetworkDevice.open(driver: VirtioNetDriver(transport: lying))
/// …
/// await lying.perform { pair in pair.transmit.show([(id: 9999, length: 0)]); pair.interrupt() }   // never issued
/// ```
///
/// It is a transport, so the driver's rings lie in memory that the test can read and write: `perform` runs a piece of the
/// script on a pair's loop, between two turns of the driver; `ring` gives a pair's raw rings to another thread. What the
/// driver does with the transport is recorded in order.
public final class LyingDevice: VirtioTransport {
  /// What the driver did, in order.
  public enum Event: Sendable, Hashable {
    /// The driver wants to reach the device.
    case connect
    /// It asked for a reset.
    case reset
    /// It read what is offered.
    case readFeatures
    /// It accepted these.
    case setFeatures(FeatureSet)
    /// It wrote this status.
    case setStatus(DeviceStatus)
    /// It read the status.
    case readStatus
    /// It read the configuration space.
    case readConfig
    /// It showed memory: that of a pool first, then that of rings.
    case share
    /// It told of the ring of this virtqueue.
    case attach(queue: Int)
    /// A doorbell while the status said that nobody may ring.
    case misplacedKick(pair: Int)
    /// It let go of the device.
    case shutDown
  }

  /// What the device does with a reset.
  public enum ResetBehaviour: Sendable, Hashable {
    /// Confirms it at once.
    case confirm
    /// Never confirms: the driver's time-out passes.
    case never
  }

  /// What it offers.
  public let configuration: Configuration
  private let state = Mutex(State())

  private struct State {
    var events: [Event] = []
    var status = DeviceStatus()
    var behaviour = ResetBehaviour.confirm
    var addresses = AddressPlan()
    var pairs: [Reference] = []
    /// Queues whose pair lacks the other one, by their index.
    var halves: [Int: Half] = [:]
    var queueSize: Int?
    var control: DeviceControl?
    var controlQueue: ControlReference?
    /// What the configuration is now instead of what it was at first.
    var space: [UInt8]?
    var hasChanged = false
    /// What a control virtqueue does with commands from its beginning on.
    var firstAnswer = LyingControl.Answer.acknowledge
    var features: FeatureSet?
    /// Told, and not made good yet by a driver that has set DRIVER_OK anew.
    var loss: VirtioLoss?
    var isThere = true
  }

  /// Where the script finds a pair.
  private struct Reference: @unchecked Sendable {
    // Proof of Sendable: `pair` is used inside `scope.run` only, which is the loop it belongs to.
    let pair: LyingPair
    let index: Int
    let scope: LoopScope
  }

  private struct ControlReference: @unchecked Sendable {
    // Proof of Sendable: `control` is used inside `scope.run` only, which is the loop it belongs to.
    let control: LyingControl
    let scope: LoopScope
  }

  private struct Half: @unchecked Sendable {
    // Proof of Sendable: it is used in `attachQueue` only, which for both queues of a pair is called on the pair's loop.
    let half: LyingPair.Half
  }

  /// A device of this configuration.
  public init(_ configuration: Configuration = Configuration()) { self.configuration = configuration }
}

// MARK: - The script

extension LyingDevice {
  /// What the driver has done so far.
  public var events: [Event] {
    // An array of its own, made under the lock: one that shared its storage would be ordered by a reference count alone, which
    // ThreadSanitizer does not see.
    state.withLock { $0.events.map { $0 } }
  }

  /// What the device does with the next reset.
  public var resetBehaviour: ResetBehaviour {
    get { state.withLock { $0.behaviour } }
    set { state.withLock { $0.behaviour = newValue } }
  }

  /// Runs a piece of the script on a pair's loop; nil when there is no such pair.
  @discardableResult public func perform<Result: Sendable>(
    pair index: Int = 0, _ body: @Sendable (LyingPair) -> Result
  ) async -> Result? {
    // Pairs whose loops are told at the same time come in any order.
    guard let reference = state.withLock({ $0.pairs.first { $0.index == index } }) else { return nil }
    return await reference.scope.run { _ in body(reference.pair) }
  }

  /// Runs a piece of the script about the control virtqueue, on the control loop; nil when there is none.
  @discardableResult public func performControl<Result: Sendable>(
    _ body: @Sendable (LyingControl) -> Result
  ) async -> Result? {
    guard let reference = state.withLock({ $0.controlQueue }) else { return nil }
    return await reference.scope.run { _ in body(reference.control) }
  }

  /// What a control virtqueue does with commands from its beginning on, before the script can say anything.
  public var firstAnswer: LyingControl.Answer {
    get { state.withLock { $0.firstAnswer } }
    set { state.withLock { $0.firstAnswer = newValue } }
  }

  /// The configuration has become this one; the driver is told, once however many fields have changed.
  public func changeConfiguration(to space: [UInt8]) {
    let control = state.withLock { state in
      state.space = space
      state.hasChanged = true
      return state.control
    }
    control?.requestAttention()
  }

  /// A pair's raw rings, for use on any thread; nil when there is no such pair.
  public func rings(pair index: Int = 0) async -> (receive: LyingRing, transmit: LyingRing)? {
    await perform(pair: index) { ($0.receive.ring, $0.transmit.ring) }
  }

  /// What the device offers from now on instead of what its configuration says.
  public func offer(_ features: FeatureSet) { state.withLock { $0.features = features } }

  /// The largest queue size from now on, instead of what its configuration says.
  public func offer(maximumQueueSize size: Int) { state.withLock { $0.queueSize = size } }

  /// Until it is set again, nobody reaches the device.
  public var isThere: Bool {
    get { state.withLock { $0.isThere } }
    set { state.withLock { $0.isThere = newValue } }
  }

  /// The device is lost; the script may still write to the rings that it had.
  ///
  /// - Parameter isGone: what the driver is told when it asks whether the device is gone for good; called from any thread. When
  ///   that changes later, say so with `requestAttention`.
  public func lose(isGone: @escaping @Sendable () -> Bool) {
    let cause = NetworkDeviceError(.broken, name, offered: "it was told to get lost")
    let control = state.withLock { state -> DeviceControl? in
      guard let control = state.control else { return nil }
      state.loss = VirtioLoss(cause: cause) { limit in
        let deadline = LoopDeadline(control.loop, after: limit)
        while !isGone() {
          // A script has no way to say when it is so.
          guard deadline.remaining > .zero, await control.loop.sleep(for: .milliseconds(1)) else { return false }
        }
        return true
      }
      return control
    }
    control?.requestAttention()
  }

  /// Has the driver look again at devices that it lost.
  public func requestAttention() { state.withLock { $0.control }?.requestAttention() }

  private func note(_ event: Event) { state.withLock { $0.events.append(event) } }

  private func noteKick(_ pair: Int) {
    state.withLock { state in
      if !state.status.contains(.driverOK) { state.events.append(.misplacedKick(pair: pair)) }
    }
  }
}

// MARK: - Agreeing

extension LyingDevice {
  /// "lying".
  public var name: String { "lying" }

  /// As configured.
  public var pairSwitching: FeatureSet.PairSwitching { configuration.pairSwitching }

  /// As configured.
  public var requiredFeatures: FeatureSet { configuration.requiredFeatures }

  /// As configured.
  public func maximumQueues() async throws(NetworkDeviceError) -> Int? { configuration.maximumQueues }

  /// As configured.
  public var recovery: VirtioRecovery? { configuration.recovery }

  /// The loop of everything that waits here.
  public func attach(control: DeviceControl) { state.withLock { $0.control = control } }

  /// The device is lost when the script says so.
  public func loss() async -> VirtioLoss? { state.withLock { $0.loss } }

  /// Forgets what was before, except what it saw.
  public func connect() async throws(NetworkDeviceError) {
    let (isThere, pairs) = state.withLock { state in
      state.events.append(.connect)
      let pairs = state.pairs
      state.pairs = []
      state.halves = [:]
      state.controlQueue = nil
      state.addresses = AddressPlan()
      return (state.isThere, pairs)
    }
    for reference in pairs { await reference.scope.run { _ in reference.pair.leave() } }
    guard isThere else { throw NetworkDeviceError(.notFound, "open \(name)", offered: "it was told not to be there") }
  }

  /// As configured.
  public func offeredFeatures() async throws(NetworkDeviceError) -> FeatureSet {
    note(.readFeatures)
    return state.withLock { $0.features } ?? configuration.features
  }

  /// As configured.
  public func maximumQueueSize() async throws(NetworkDeviceError) -> Int? {
    state.withLock { $0.queueSize } ?? configuration.maximumQueueSize
  }

  /// As configured, changes in the middle included.
  public func readConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig {
    note(.readConfig)
    do {
      var configuration = configuration
      if let space = state.withLock({ $0.space }) { configuration.space = space }
      return try NetConfig(reading: LyingConfigReader(configuration), features: offered)
    } catch {
      throw NetworkDeviceError(.broken, "reading the configuration of \(name)", offered: "\(error)")
    }
  }

  /// What the script has made of it.
  public func changedConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig? {
    let hasChanged = state.withLock { state in
      defer { state.hasChanged = false }
      return state.hasChanged
    }
    return hasChanged ? try await readConfig(offered: offered) : nil
  }

  /// Takes them as they are.
  public func setFeatures(_ features: FeatureSet) async throws(NetworkDeviceError) { note(.setFeatures(features)) }

  /// Sets the status, but for FEATURES_OK if it was told to refuse.
  public func setStatus(_ status: DeviceStatus) async throws(NetworkDeviceError) {
    state.withLock { state in
      state.events.append(.setStatus(status))
      state.status = configuration.refusesFeatures ? status.subtracting(.featuresOK) : status
      if status.contains(.driverOK) { state.loss = nil }
    }
  }

  /// The status.
  public func status() async throws(NetworkDeviceError) -> DeviceStatus {
    state.withLock { state in
      state.events.append(.readStatus)
      return state.status
    }
  }
}

// MARK: - Memory and queues

extension LyingDevice {
  /// Keeps it as long as anybody can write to it.
  public func share(_ memory: VirtioMemory) async throws(NetworkDeviceError) -> UInt64 {
    try state.withLock { state throws(NetworkDeviceError) in
      state.events.append(.share)
      return try state.addresses.share(memory)
    }
  }

  private func controlIndex(_ features: FeatureSet) -> Int? {
    guard features.contains(.ctrlVQ) else { return nil }
    guard features.contains(.mq), configuration.space.count >= 10 else { return 2 }
    return 2 * (Int(configuration.space[8]) | Int(configuration.space[9]) << 8)
  }

  /// Finds the ring in the memory that it was shown. A pair is there when both of its queues are.
  public func attachQueue(
    _ queue: VirtioQueuePlacement, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbell {
    let (memory, sibling) = state.withLock { state in
      state.events.append(.attach(queue: queue.index))
      return (LyingMemory(state.addresses.pieces), state.halves.removeValue(forKey: queue.sibling))
    }
    guard let ring = LyingRing(queue, memory: memory) else {
      throw NetworkDeviceError(.invalidConfiguration, "attachQueue", offered: "a ring outside the memory shown")
    }
    if queue.index == controlIndex(queue.features) {
      let control = LyingControl(
        LyingQueue(ring: ring, eventIndex: queue.features.contains(.eventIndex)), features: queue.features,
        onInterrupt: onInterrupt, onFailure: onFailure)
      let reference = ControlReference(control: control, scope: LoopScope(loop))
      state.withLock { state in
        state.controlQueue = reference
        control.answer = state.firstAnswer
      }
      return control.bell
    }
    let half = LyingPair.Half(queue, ring, LyingBell(isTransmit: queue.isTransmit), onInterrupt)
    guard let sibling = sibling?.half else {
      state.withLock { $0.halves[queue.index] = Half(half: half) }
      return half.bell
    }
    let index = queue.pair
    let made = LyingPair(
      queue.isTransmit ? (sibling, half) : (half, sibling), loop: loop, onFailure: onFailure,
      onKick: { [weak self] in self?.noteKick(index) })
    do {
      try made.join()
    } catch {
      throw NetworkDeviceError(.system, "attachQueue", offered: error.description)
    }
    let reference = Reference(pair: made, index: index, scope: LoopScope(loop))
    state.withLock { $0.pairs.append(reference) }
    return half.bell
  }
}

// MARK: - The end

extension LyingDevice {
  /// Confirms or does not, as it was told. The script can go on writing to the rings.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    let (behaviour, pairs) = state.withLock { state in
      state.events.append(.reset)
      state.status = []
      return (state.behaviour, state.pairs)
    }
    for reference in pairs { await reference.scope.run { _ in reference.pair.leave() } }
    guard behaviour == .never else { return }
    if let loop = state.withLock({ $0.control?.loop }) { await loop.sleep(for: timeout) }
    throw NetworkDeviceError(.resetNotConfirmed, "resetting \(name)", offered: "no answer within \(timeout.inUnits)")
  }

  /// The script can go on writing to the rings.
  public func shutDown() async {
    state.withLock { state in
      state.events.append(.shutDown)
      state.control = nil
      state.loss = nil
    }
  }
}
