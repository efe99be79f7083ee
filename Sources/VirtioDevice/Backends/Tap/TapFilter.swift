internal import CNetdevSystem
internal import PacketFormats
internal import Virtio

/// What the kernel can tell of a `ReceiveFilter` for the readers of a TAP interface (TUNSETTXFILTER): a coarse one, for the engine looks
/// again at what passes it.
struct TapFilter: Sendable, Equatable {
  /// Stations first; without one everything passes.
  private let addresses: [MACAddress]
  private let allGroups: Bool

  /// No filter.
  static let everything = TapFilter(addresses: [], allGroups: false)

  private init(addresses: [MACAddress], allGroups: Bool) {
    self.addresses = addresses
    self.allGroups = allGroups
  }

  /// As much as the kernel can tell.
  init(_ filter: ReceiveFilter) {
    guard !filter.passesAll, !filter.switches.contains(.allUnicast), let unicast = filter.unicast else {
      self = .everything
      return
    }
    let stations = [filter.station] + unicast.sorted { $0.rawValue < $1.rawValue }
    let groups = [.broadcast] + (filter.multicast ?? []).sorted { $0.rawValue < $1.rawValue }
    guard stations.count + groups.count <= Int(NETDEV_TAP_FILTER_ADDRESSES) else {
      self = .everything
      return
    }
    self.init(
      addresses: stations + groups, allGroups: filter.switches.contains(.allMulticast) || filter.multicast == nil)
  }

  /// Tells the kernel. One that refuses hands over everything, which the engine then looks at. May block.
  func apply(to descriptor: CInt) {
    // A byte more, so that there is an address of no addresses too.
    let bytes: [UInt8] = addresses.flatMap { address in (0..<6).map { address[$0] } } + [0]
    _ = unsafe netdev_tap_set_filter(descriptor, allGroups, bytes, CInt(addresses.count))
  }
}
