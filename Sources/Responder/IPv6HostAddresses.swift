import PacketFormats

/// The IPv6 addresses of a host, arranged for the questions asked of every packet: is this address ours, are we in this group,
/// and which of ours speaks to that host.
///
/// Two addresses stand by themselves, because most hosts have two, the link's and one more: then no array is touched.
struct IPv6HostAddresses: Sendable {
  private let linkLocal: IPv6Address
  private let primary: IPv6Network
  private let hasOthers: Bool
  private let others: [IPv6Network]

  /// Addresses of which the first that is link-local is the one to speak from on the link.
  init(linkLocal: IPv6Address, primary: IPv6Network, others: some Sequence<IPv6Network>) {
    self.linkLocal = linkLocal
    self.primary = primary
    self.others = Array(others)
    hasOthers = !self.others.isEmpty
  }

  @inline(__always)
  func owns(_ address: IPv6Address) -> Bool {
    address == primary.address || address == linkLocal || (hasOthers && othersOwn(address))
  }

  /// Whether we are in a group: of all nodes (RFC 4291 §2.8), or one in which an address of ours is asked for.
  @inline(__always)
  func isMember(of group: IPv6Address) -> Bool {
    group == .allNodes || group == primary.address.solicitedNode || group == linkLocal.solicitedNode
      || (hasOthers && othersAreMember(of: group))
  }

  /// The address that a packet to `destination` comes from if nothing else says so: on the link the link's; else the one
  /// whose network `destination` is in, and without one the first that is not the link's (RFC 6724 §5, rules 2 and 8).
  @inline(never)
  func source(for destination: IPv6Address) -> IPv6Address {
    if destination.isLinkLocal { return linkLocal }
    if primary.contains(destination) { return primary.address }
    for index in others.indices where others[index].contains(destination) { return others[index].address }
    if !primary.address.isLinkLocal { return primary.address }
    for index in others.indices where !others[index].address.isLinkLocal { return others[index].address }
    return linkLocal
  }

  @inline(never)
  private func othersOwn(_ address: IPv6Address) -> Bool {
    for index in others.indices where others[index].address == address { return true }
    return false
  }

  @inline(never)
  private func othersAreMember(of group: IPv6Address) -> Bool {
    for index in others.indices where others[index].address.solicitedNode == group { return true }
    return false
  }
}
