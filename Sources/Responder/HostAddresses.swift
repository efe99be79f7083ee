import PacketFormats

/// The IPv4 addresses of a host, arranged for the two questions asked of every packet: is this address ours, and does it mean all
/// hosts of one of our networks.
///
/// The first address stands by itself, because most hosts have one: then no array is touched.
struct HostAddresses: Sendable {
  /// An address with the broadcast addresses of its network worked out once; where there are none, its own stands in.
  private struct Interface: Sendable {
    let address: IPv4Address
    let broadcast: IPv4Address
    let oldBroadcast: IPv4Address

    init(_ network: IPv4Network) {
      address = network.address
      broadcast = network.broadcastAddress ?? network.address
      oldBroadcast = network.broadcastAddress == nil ? network.address : network.networkAddress
    }

    private init() { (address, broadcast, oldBroadcast) = (.unspecified, .unspecified, .unspecified) }

    static let none = Interface()

    @inline(__always)
    func isBroadcast(_ other: IPv4Address) -> Bool { other == broadcast || other == oldBroadcast }
  }

  private let primary: Interface
  private let hasOthers: Bool
  private let others: [Interface]

  /// The addresses in order. A host without any is not asked: it has no IPv4.
  init(_ networks: [IPv4Network]) {
    primary = networks.first.map(Interface.init) ?? .none
    others = networks.dropFirst().map(Interface.init)
    hasOthers = !others.isEmpty
  }

  @inline(__always)
  func owns(_ address: IPv4Address) -> Bool {
    address == primary.address || (hasOthers && othersOwn(address))
  }

  @inline(__always)
  func isBroadcast(_ address: IPv4Address) -> Bool {
    primary.isBroadcast(address) || (hasOthers && othersAreBroadcast(address))
  }

  @inline(never)
  private func othersOwn(_ address: IPv4Address) -> Bool {
    for index in others.indices where others[index].address == address { return true }
    return false
  }

  @inline(never)
  private func othersAreBroadcast(_ address: IPv4Address) -> Bool {
    for index in others.indices where others[index].isBroadcast(address) { return true }
    return false
  }
}
