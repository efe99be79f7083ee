internal import CNetdevSystem
internal import Logging
public import Netdev
internal import PacketFormats
internal import Synchronization
public import Virtio
internal import VirtioNet

// What driver and back-end agree on: features, configuration, status.
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
    if let address = options.hardwareAddress { config.macAddress = address }
    if config.macAddress == nil { config.macAddress = Self.address(for: options.path) }
    if config.status == nil { config.status = .linkUp }
    if offered.contains(.mq) {
      config.maximumPairs = min(config.maximumPairs ?? .max, UInt16(clamping: agreement.queuePairs))
    }
    if let mtu = options.mtu, offered.contains(.mtu) { config.mtu = UInt16(mtu) }
    state.withLock { [config] in $0.mtu = config.mtu }
    return config
  }

  /// Reads it when the back-end has announced a change, as it can while the protocol knows CONFIG.
  public func changedConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig? {
    guard let session = state.withLock({ $0.session }), await session.takeConfigChange() else { return nil }
    let mtu = state.withLock { $0.mtu }
    do throws(NetworkDeviceError) {
      let config = try await readConfig(offered: offered)
      if config.mtu != mtu {
        // Buffers and rings were made for the first one.
        options.logger.notice(
          "the back-end's MTU is now \(config.mtu ?? 0); open the device anew to use it",
          metadata: ["device": "\(name)"])
      }
      return config
    } catch {
      options.logger.notice(
        "the changed configuration cannot be used", metadata: ["device": "\(name)", "cause": "\(error)"])
      return nil
    }
  }

  /// A locally administered address that is the same whenever the path is.
  private static func address(for path: String) -> MACAddress {
    // FNV-1a: any hash will do that does not change from run to run.
    let hash = path.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
    return MACAddress(rawValue: 0x02_00_00_00_00_00 | hash & 0x00_ff_ff_ff_ff_ff)
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
    let (addresses, wires) = state.withLock { ($0.addresses, $0.wires) }
    try await session.share(try Self.regions(addresses))
    let active = state.withLock { $0.activePairs }
    try await session.start(wires.map { $0.setup }.sorted { $0.index < $1.index }, active: active)
    state.withLock { $0.driven = session }
  }

  private static func regions(_ addresses: AddressPlan) throws(NetworkDeviceError) -> [MemoryRegion] {
    var regions: [MemoryRegion] = []
    for piece in addresses.pieces {
      guard let descriptor = piece.memory.descriptor else {
        throw NetworkDeviceError(
          .invalidConfiguration, "showing memory to a back-end", offered: "memory that only this process can map")
      }
      // Whole pages: the file has them, and back-ends map nothing less.
      let size = UInt64((piece.memory.length + 4095) & ~4095)
      regions.append(MemoryRegion(address: piece.address, size: size, fileOffset: 0, descriptor: descriptor))
    }
    return regions
  }
}
