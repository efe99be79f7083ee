package import LibeventConcurrency
public import PacketFormats
import Synchronization
public import Virtio

/// The device model of virtio-net: what a driver is offered, what it has accepted, how far it has come, and the
/// configuration it reads. Transports present it, in whatever way they talk to drivers.
///
/// It knows no transport and no thread. A transport passes on what the driver does: features, status, rings; once the driver
/// has said DRIVER_OK it makes an engine for each queue pair, which then works without the device model. What was validated
/// does not change any more: features are fixed from FEATURES_OK on, everything else from construction, until a reset.
///
///     let device = VirtioNetDevice(backend: try TapBackend("tap0", queues: 2))
///     device.setStatus([.acknowledge, .driver])
///     device.setDriverFeatures(device.offeredFeatures)
///     device.setStatus([.acknowledge, .driver, .featuresOK])        // read back: the device may refuse
///     let engine = try device.makeEngine(pair: 0, …)                // on the pair's loop
///
/// Isolation: `Sendable`; all control state is behind one mutex, so that calls may come from any thread. The order of calls
/// is the transport's affair: one actor at a time.
public final class VirtioNetDevice: Sendable {
  /// What can be chosen about a device before it exists.
  public struct Configuration: Sendable {
    /// Queue pairs to offer; nil offers all that the back-end has.
    public var queuePairs: Int?
    /// The device's address; nil takes the back-end's, or a random locally administered one.
    public var macAddress: MACAddress?
    /// The largest frame without Ethernet header, 68 to 65535; nil takes what the back-end says.
    public var mtu: UInt16?
    /// Features of rings and buffers to offer, of these. Others are ignored.
    public var ringFeatures: FeatureSet = [.mrgRxbuf, .indirectDesc, .eventIndex, .ringPacked, .inOrder]
    /// The largest ring that a driver may set up, up to 32768.
    public var maximumQueueSize = 1024
    /// Who switches queue pairs on and off, and with that whether the device has a control virtqueue, which its transport then serves.
    public var pairSwitching: FeatureSet.PairSwitching = .transport
    /// Whether the link is up at first.
    public var isLinkUp = true
    /// Called with what happens to a queue pair beside its frames: for a log. From the pair's loop; must not block.
    public var onEvent: (@Sendable (_ event: PortEvent, _ pair: Int) -> Void)?
    /// Whom the loops tell of what goes wrong with them that are made for the device, by their names.
    package var loopReports: @Sendable (_ loop: String) -> LoopReports = { _ in LoopReports() }

    /// The defaults.
    public init() {}
  }

  /// What stands behind the device.
  public let backend: any NetworkBackend
  /// The features that the driver may accept.
  public let offeredFeatures: FeatureSet
  /// Queue pairs that the driver may use.
  public let maximumPairs: Int
  /// The device's address until its driver gives it another one, and after each reset.
  let ownAddress: MACAddress
  /// The largest frame without its Ethernet header, if there is a limit.
  public let mtu: UInt16?
  /// The largest ring that the driver may set up.
  public let maximumQueueSize: Int

  /// Who switches queue pairs on and off: with `controlQueue` the transport serves a control virtqueue.
  public let pairSwitching: FeatureSet.PairSwitching
  let onEvent: (@Sendable (PortEvent, Int) -> Void)?
  /// For the loops that are made for the device.
  package let loopReports: @Sendable (_ loop: String) -> LoopReports
  /// What each pair's engines have done and dropped.
  let ledgers: [PairLedger]
  let state: Mutex<State>

  /// What changes while the device lives.
  struct State {
    var status: DeviceStatus = []
    var driverFeatures = FeatureSet()
    var activePairs = 1
    var isLinkUp: Bool
    var generation: UInt32 = 0
    var configurationLine: (@Sendable () -> Void)?
    var loss: BackendError?
    var macAddress: MACAddress
    /// What the driver has asked for; without the station, which is `macAddress`.
    var filter: ReceiveFilter
    /// The driver is asked to announce itself.
    var wantsAnnouncement = false

    /// Whether the status and these features make a pair one that is served.
    func serves(pair: Int) -> Bool {
      !driverFeatures.contains([.ctrlVQ, .mq]) || pair < activePairs
    }
  }

  /// A device in front of a back-end. It owns the back-end from here on; `close` gives it back.
  public init(backend: any NetworkBackend, configuration: Configuration = Configuration()) {
    self.backend = backend
    let available = max(backend.maximumPairs, 1)
    maximumPairs = min(max(configuration.queuePairs ?? available, 1), min(available, 0x8000))
    ownAddress = configuration.macAddress ?? backend.macAddress ?? .randomLocallyAdministered()
    mtu = (configuration.mtu ?? backend.mtu).map { max($0, 68) }
    maximumQueueSize = configuration.maximumQueueSize
    pairSwitching = configuration.pairSwitching
    onEvent = configuration.onEvent
    loopReports = configuration.loopReports
    ledgers = (0..<maximumPairs).map { _ in PairLedger() }
    var offered: FeatureSet = [.version1, .mac, .status]
    offered.formUnion(
      configuration.ringFeatures.intersection([.mrgRxbuf, .indirectDesc, .eventIndex, .ringPacked, .inOrder]))
    offered.formUnion(backend.features.intersection(Self.offloads))
    if mtu != nil { offered.insert(.mtu) }
    if maximumPairs > 1 { offered.insert(.mq) }
    if configuration.pairSwitching == .controlQueue { offered.formUnion(Self.controlFeatures) }
    offeredFeatures = offered.droppingDependents(switching: configuration.pairSwitching)
    state = Mutex(
      State(isLinkUp: configuration.isLinkUp, macAddress: ownAddress, filter: ReceiveFilter(station: ownAddress)))
  }

  /// The device's address. From any thread.
  public var macAddress: MACAddress { state.withLock { $0.macAddress } }

  /// What a back-end may add: none of it makes the header longer than 12 bytes or needs a control virtqueue.
  private static let offloads: FeatureSet = [
    .csum, .guestCsum, .hostTSO4, .hostTSO6, .hostECN, .hostUFO, .hostUSO, .guestTSO4, .guestTSO6, .guestECN, .guestUFO,
    .guestUSO4, .guestUSO6,
  ]

  /// Gives back what the back-end has opened, which may block: not on a loop. Engines are stopped first. Idempotent.
  public func close() { backend.close() }

  /// Whether `prepare` or `close` may block: then not on a loop.
  package var mayBlock: Bool { backend.mayBlock }
}

extension MACAddress {
  /// An address that no manufacturer has given: the second bit of the first byte set, the first, which marks groups, clear.
  static func randomLocallyAdministered() -> MACAddress {
    MACAddress(rawValue: UInt64.random(in: 0...UInt64.max) & ~0x0100_0000_0000 | 0x0200_0000_0000)
  }
}

// MARK: - Status and features

extension VirtioNetDevice {
  /// The status field, as the driver reads it.
  public var status: DeviceStatus { state.withLock { $0.status } }

  /// The driver writes the status field. Read it back: the device leaves FEATURES_OK out when it refuses the features.
  ///
  /// Zero resets (VIRTIO 1.4 §2.1). Bits are only ever added: a driver must not clear one (§2.1.1), and NEEDS_RESET is the
  /// device's own. DRIVER_OK does not stick without FEATURES_OK.
  public func setStatus(_ written: DeviceStatus) {
    guard !written.isEmpty else { return reset() }
    state.withLock { state in
      var status = state.status.union(written.subtracting(.needsReset))
      if status.contains(.featuresOK), !state.status.contains(.featuresOK), !accepts(state.driverFeatures) {
        status.remove(.featuresOK)
      }
      if status.contains(.featuresOK), !state.status.contains(.featuresOK), state.driverFeatures.contains(.ctrlVLAN) {
        // Of none until the driver adds some (§5.1.9.5.3).
        state.filter.vlans = []
      }
      if !status.contains(.featuresOK) { status.remove(.driverOK) }
      state.status = status
    }
  }

  /// The driver writes the features it accepts. False, and nothing changes, once FEATURES_OK is set: from then on the
  /// features are fixed (§3.1.1) until a reset.
  @discardableResult public func setDriverFeatures(_ features: FeatureSet) -> Bool {
    state.withLock { state in
      guard !state.status.contains(.featuresOK) else { return false }
      state.driverFeatures = features
      return true
    }
  }

  /// The features agreed on, or nil before FEATURES_OK.
  public var negotiatedFeatures: FeatureSet? {
    state.withLock { $0.status.contains(.featuresOK) ? $0.driverFeatures : nil }
  }

  /// Whether a driver may accept just these features: all of them offered, VERSION_1 among them (§6.1), and none without
  /// those that it needs (§2.2.2, §5.1.3.1).
  public func accepts(_ features: FeatureSet) -> Bool {
    features.isSubset(of: offeredFeatures) && features.contains(.version1)
      && features.droppingDependents(switching: pairSwitching) == features
  }

  /// Back to the state after construction, apart from the link. The transport has stopped all engines before.
  public func reset() {
    state.withLock { state in
      state.status = []
      state.driverFeatures = []
      state.activePairs = 1
      state.macAddress = ownAddress
      state.filter = ReceiveFilter(station: ownAddress)
      state.wantsAnnouncement = false
    }
  }

  /// The device has met an error that only a reset cures: NEEDS_RESET, and a configuration change notification if the
  /// driver is running (§2.1.2). From any thread.
  public func requireReset() {
    let line = state.withLock { state -> (@Sendable () -> Void)? in
      guard !state.status.contains(.needsReset) else { return nil }
      state.status.insert(.needsReset)
      return state.status.contains(.driverOK) ? state.configurationLine : nil
    }
    line?()
  }

  /// Whether a pair is served: all that are started, or as many as the driver has asked for by the control virtqueue. From any thread.
  public func serves(pair: Int) -> Bool { state.withLock { $0.serves(pair: pair) } }

  /// Queue pairs in use: 1 after every reset (§5.1.9.5.6).
  public var activePairs: Int { state.withLock { $0.activePairs } }

  /// The driver asks for so many queue pairs. False, and nothing changes, when MQ was not negotiated or the number is out of
  /// range (§5.1.9.5.6.2). The transport enables and disables the engines.
  public func setActivePairs(_ count: Int) -> Bool {
    state.withLock { state in
      guard count >= 1, count <= maximumPairs, state.status.contains(.featuresOK),
        count == 1 || state.driverFeatures.contains(.mq)
      else { return false }
      state.activePairs = count
      return true
    }
  }
}
