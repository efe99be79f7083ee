/// Which features need which others (VIRTIO 1.4 §5.1.3.1), and what is left when some are missing.
extension FeatureSet {
  /// Who switches queue pairs on and off, and with that whether MQ needs a control virtqueue.
  public enum PairSwitching: Hashable, Sendable {
    /// The driver asks for pairs through the control virtqueue: MQ needs CTRL_VQ, as the text says.
    case controlQueue
    /// The transport does, as vhost-user by VRING_ENABLE: there back-ends offer MQ without CTRL_VQ.
    case transport
  }

  /// A feature, and the sets of which it needs at least one completely.
  private struct Dependency {
    let feature: FeatureSet
    let anyOf: [FeatureSet]

    init(_ feature: FeatureSet, _ anyOf: FeatureSet...) {
      self.feature = feature
      self.anyOf = anyOf
    }
  }

  private static let dependencies: [Dependency] = [
    Dependency(.guestTSO4, .guestCsum), Dependency(.guestTSO6, .guestCsum),
    Dependency(.guestECN, .guestTSO4, .guestTSO6), Dependency(.guestUFO, .guestCsum),
    Dependency(.guestUSO4, .guestCsum), Dependency(.guestUSO6, .guestCsum),
    Dependency(.guestUDPTunnelGSO, [.guestTSO4, .guestTSO6, .guestUSO4, .guestUSO6]),
    Dependency(.guestUDPTunnelGSOCsum, .guestUDPTunnelGSO),
    Dependency(.hostTSO4, .csum), Dependency(.hostTSO6, .csum), Dependency(.hostECN, .hostTSO4, .hostTSO6),
    Dependency(.hostUFO, .csum), Dependency(.hostUSO, .csum),
    Dependency(.hostUDPTunnelGSO, [.hostTSO4, .hostTSO6, .hostUSO]),
    Dependency(.hostUDPTunnelGSOCsum, .hostUDPTunnelGSO),
    Dependency(.ctrlRX, .ctrlVQ), Dependency(.ctrlVLAN, .ctrlVQ), Dependency(.guestAnnounce, .ctrlVQ),
    Dependency(.ctrlMACAddress, .ctrlVQ), Dependency(.notfCoal, .ctrlVQ), Dependency(.vqNotfCoal, .ctrlVQ),
    Dependency(.rscExt, .hostTSO4, .hostTSO6), Dependency(.rss, .ctrlVQ),
    Dependency(.hashTunnel, [.ctrlVQ, .rss], [.ctrlVQ, .hashReport]), Dependency(.rssContext, [.ctrlVQ, .rss]),
    // Not in the text, or only as a recommendation there: of no use without the channel, and Linux holds to them.
    Dependency(.ctrlGuestOffloads, .ctrlVQ), Dependency(.ctrlRXExtra, .ctrlVQ), Dependency(.hashReport, .ctrlVQ),
  ]

  /// This set without the features whose requirements are not in it, and without those that needed them in turn.
  ///
  /// `switching` says whether MQ needs CTRL_VQ here.
  public func droppingDependents(switching: PairSwitching = .controlQueue) -> FeatureSet {
    var left = self
    if switching == .controlQueue, !left.contains(.ctrlVQ) { left.remove(.mq) }
    var before: FeatureSet
    repeat {
      before = left
      for dependency in Self.dependencies where !dependency.anyOf.contains(where: { left.contains($0) }) {
        left.remove(dependency.feature)
      }
    } while left != before
    return left
  }

  /// Receive offloads that bring frames longer than an MTU.
  public static let largeReceive: FeatureSet = [.guestTSO4, .guestTSO6, .guestUFO, .guestUSO4, .guestUSO6]

  /// This set without what receive buffers of `bufferSize` bytes, net header included, cannot take.
  ///
  /// Without MRG_RXBUF a large frame must fit one buffer (§5.1.9.3), so that small buffers rule large receive out, and
  /// what depends on it.
  public func fitting(receiveBufferSize bufferSize: Int, switching: PairSwitching = .controlQueue) -> FeatureSet {
    guard bufferSize < minimumReceiveBufferSize else { return self }
    return subtracting(Self.largeReceive).droppingDependents(switching: switching)
  }

  /// Bytes of the net header with these features, in front of received and transmitted frames alike (§5.1.9.3.1).
  public var netHeaderSize: Int {
    if !isDisjoint(with: [.outNetHeader, .ipsec]) { return 32 }
    if !isDisjoint(with: [.guestUDPTunnelGSO, .hostUDPTunnelGSO]) { return 24 }
    if contains(.hashReport) { return 20 }
    return VirtioNetHeader.size
  }

  /// The smallest receive buffer that these features allow, net header included (§5.1.9.3).
  public var minimumReceiveBufferSize: Int {
    if contains(.mrgRxbuf) { return netHeaderSize }
    return (isDisjoint(with: Self.largeReceive) ? 1514 : 65589) + netHeaderSize
  }
}
