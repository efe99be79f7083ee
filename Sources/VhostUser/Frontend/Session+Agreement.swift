internal import Netdev
internal import Virtio

/// What was agreed with the back-end.
struct Agreement: Sendable {
  /// What the back-end offers, its own bits included.
  var offered = FeatureSet()
  /// Protocol features in force; empty when the back-end knows none.
  var protocolFeatures = ProtocolFeatures()
  /// Queue pairs that the back-end claims to have; DPDK says 128 whatever was configured.
  var queuePairs = 1
  /// Regions of memory that it can be shown.
  var memorySlots = FrontendMessage.maximumRegions
  /// What the driver accepted.
  var accepted = FeatureSet()

  /// Rings have to be enabled by a message (vhost-user, "Ring states").
  var enablesRings: Bool { offered.contains(.vhostUserProtocolFeatures) }
}

extension Session {
  /// The first words: owner, features, protocol features, and what those bring.
  ///
  /// - Parameter patience: how long the first answer may take; nil is the session's own time-out. Who says nothing is none.
  func agree(patience: Duration? = nil) async throws(NetworkDeviceError) {
    try await ask(.setOwner, within: patience)
    agreement.offered = FeatureSet(low: try await number(.getFeatures, within: patience))
    guard agreement.enablesRings else { return }
    let offered = ProtocolFeatures(rawValue: try await number(.getProtocolFeatures))
    let accepted = ProtocolFeatures.accepted(of: offered)
    try await ask(.setProtocolFeatures(accepted))
    agreement.protocolFeatures = accepted
    if accepted.contains(.replyAck) { beginAcknowledging() }
    if accepted.contains(.mq) { agreement.queuePairs = try pairs(try await number(.getQueueNum)) }
    if accepted.contains(.configureMemSlots) { agreement.memorySlots = try slots(try await number(.getMaxMemSlots)) }
    if accepted.contains(.backendReq) { try await openChannel() }
  }

  private func pairs(_ number: UInt64) throws(NetworkDeviceError) -> Int {
    // The configuration's own limit (VIRTIO 1.4 §5.1.4.1), and the message for a ring's eventfd has eight bits for it.
    guard number >= 1, number <= 0x8000 else { throw absurd("GET_QUEUE_NUM", "\(number) queue pairs") }
    return min(Int(number), 128)
  }

  private func slots(_ number: UInt64) throws(NetworkDeviceError) -> Int {
    guard number >= 1 else { throw absurd("GET_MAX_MEM_SLOTS", "no memory slots") }
    return Int(clamping: number)
  }

  private func absurd(_ message: String, _ what: String) -> NetworkDeviceError {
    NetworkDeviceError(.broken, "\(message) to \(name)", offered: what, advice: "see the back-end's own log")
  }

  /// Tells the back-end what the driver accepts, and then, if that is part of it, how large packets are.
  func setFeatures(_ features: FeatureSet, mtu: Int?) async throws(NetworkDeviceError) {
    let bits = features.intersection(agreement.offered).union(
      agreement.offered.intersection(.vhostUserProtocolFeatures))
    try await ask(.setFeatures(bits.low))
    agreement.accepted = bits
    guard let mtu, bits.contains(.mtu), agreement.protocolFeatures.contains(.netMTU) else { return }
    try await ask(.netSetMTU(UInt64(mtu)))
  }

  /// Writes the status where the back-end knows one.
  func setStatus(_ status: DeviceStatus, within limit: Duration? = nil) async throws(NetworkDeviceError) {
    guard agreement.protocolFeatures.contains(.status) else { return }
    try await ask(.setStatus(status.rawValue), within: limit)
  }

  /// Reads the status where the back-end knows one, else nil.
  func status() async throws(NetworkDeviceError) -> DeviceStatus? {
    guard agreement.protocolFeatures.contains(.status) else { return nil }
    return DeviceStatus(rawValue: UInt8(truncatingIfNeeded: try await number(.getStatus)))
  }

  /// The back-end's configuration, as far as these features bring one; nil when it has none to show.
  func config(for features: FeatureSet) async throws(NetworkDeviceError) -> [UInt8]? {
    let length = NetConfig.length(for: features)
    guard length > 0, agreement.protocolFeatures.contains(.config) else { return nil }
    return try await ask(.getConfig(size: length))?.config
  }
}
