import LibeventConcurrency
import PacketFormats

/// Who has which address, and until when: a value, by whatever clock the caller has.
struct Leases {
  /// The server's address, and its network.
  let network: IPv4Network
  let addresses: [IPv4Address]
  let seconds: UInt32 = 600
  private(set) var leases: [MACAddress: (address: IPv4Address, end: LoopClock.Instant)] = [:]

  init(_ network: IPv4Network, from first: IPv4Address, count: Int) {
    self.network = network
    addresses = (0..<UInt32(clamping: count)).map { IPv4Address(rawValue: first.rawValue &+ $0) }
  }

  /// Forgets what is over.
  mutating func expire(at now: LoopClock.Instant) { leases = leases.filter { $0.value.end > now } }

  /// What to say to a request; nil says nothing (RFC 2131 §4.3).
  mutating func answer(_ request: DHCPRequest, at now: LoopClock.Instant) -> DHCPReply? {
    expire(at: now)
    switch request.kind {
    case .discover:
      guard let address = choose(for: request) else { return nil }
      // Kept for the client until it has decided.
      leases[request.client] = (address, now.advanced(by: .seconds(10)))
      return DHCPReply(kind: .offer, address: address)
    case .request where request.server ?? network.address == network.address:
      let wanted = request.wanted ?? request.clientAddress
      guard leases[request.client]?.address == wanted else { return DHCPReply(kind: .refuse, address: .unspecified) }
      leases[request.client] = (wanted, now.advanced(by: .seconds(seconds)))
      return DHCPReply(kind: .acknowledge, address: wanted)
    case .request, .release, .decline: leases[request.client] = nil
    default: break
    }
    return nil
  }

  /// The client's own address, or the one that it would like, or any that is free.
  private func choose(for request: DHCPRequest) -> IPv4Address? {
    if let own = leases[request.client] { return own.address }
    let free = addresses.filter { address in !leases.values.contains { $0.address == address } }
    if let wanted = request.wanted, free.contains(wanted) { return wanted }
    return free.first
  }
}
