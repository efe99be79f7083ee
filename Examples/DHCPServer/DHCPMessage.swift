import Netdev
import PacketFormats

/// What a DHCP message is about (option 53, RFC 2132 §9.6).
enum DHCPKind: UInt8 { case discover = 1, offer, request, decline, acknowledge, refuse, release, inform }

/// What a client asks for (RFC 2131 §2): the fields that this server looks at.
struct DHCPRequest {
  var kind: DHCPKind
  var transaction: UInt32
  var client: MACAddress
  /// The address that the client has already; unspecified when it has none.
  var clientAddress: IPv4Address
  var wanted, server: IPv4Address?
  var wantsBroadcast: Bool

  static let magic: UInt32 = 0x6382_5363

  /// The request in a received frame; nil for every other frame.
  ///
  /// - Throws: `PacketFormatError` when it is cut short.
  init?(_ frame: RawSpan) throws(PacketFormatError) {
    guard let (flow, payload) = try? UDPFrame.decode(frame), flow.destinationPort == 67 else { return nil }
    let message = frame.extracting(payload)
    // A request, from an Ethernet address, with options.
    guard try message.loadUInt32(at: 0) >> 8 == 0x10106, try message.loadUInt32(at: 236) == Self.magic else {
      return nil
    }
    transaction = try message.loadUInt32(at: 4)
    wantsBroadcast = try message.loadUInt16(at: 10) & 0x8000 != 0
    clientAddress = IPv4Address(rawValue: try message.loadUInt32(at: 12))
    client = MACAddress(rawValue: try message.loadUInt64(at: 28) >> 16)
    var kind: DHCPKind?
    var offset = 240
    while try message.loadUInt8(at: offset) != 255 {
      // Its number and its length; a pad option, 0, has none.
      let option = try message.loadUInt16(at: offset)
      switch option {
      case 0x3204: wanted = IPv4Address(rawValue: try message.loadUInt32(at: offset + 2))
      case 0x3501: kind = DHCPKind(rawValue: try message.loadUInt8(at: offset + 2))
      case 0x3604: server = IPv4Address(rawValue: try message.loadUInt32(at: offset + 2))
      default: break
      }
      offset += option < 0x100 ? 1 : 2 + Int(option & 0xFF)
    }
    guard let kind else { return nil }
    self.kind = kind
  }
}

/// What the server says to it.
struct DHCPReply: Equatable {
  var kind: DHCPKind
  var address: IPv4Address

  /// The answer as a frame.
  func makePacket(to request: DHCPRequest, from own: MACAddress, _ leases: Leases, in pool: PacketPool) throws -> Packet
  {
    let server = leases.network.address
    var message = try Packet(count: 300, in: pool)
    try message.storeUInt32(0x0201_0600, at: 0)
    try message.storeUInt32(request.transaction, at: 4)
    try message.storeUInt16(request.wantsBroadcast ? 0x8000 : 0, at: 10)
    try message.storeUInt32(address.rawValue, at: 16)
    try message.storeUInt32(server.rawValue, at: 20)
    try message.storeUInt64(request.client.rawValue << 16, at: 28)
    try message.storeUInt32(DHCPRequest.magic, at: 236)
    // The kind is an option of one byte; a pad option behind it makes it as long as half of another.
    try message.storeUInt32(0x3501_0000 | UInt32(kind.rawValue) << 8, at: 240)
    var options: [(UInt16, UInt32)] = [(0x3604, server.rawValue)]
    if kind != .refuse {
      options += [(0x3304, leases.seconds), (0x0104, leases.network.mask.rawValue), (0x0304, server.rawValue)]
    }
    for (place, option) in options.enumerated() {
      try message.storeUInt16(option.0, at: 244 + 6 * place)
      try message.storeUInt32(option.1, at: 246 + 6 * place)
    }
    try message.storeUInt8(255, at: 244 + 6 * options.count)
    let isUnicast = !request.wantsBroadcast && kind != .refuse
    return try UDPFrame(
      sourceMAC: own, destinationMAC: isUnicast ? request.client : .broadcast, source: server,
      destination: isUnicast ? address : .broadcast, sourcePort: 67, destinationPort: 68
    ).makePacket(around: consume message)
  }
}
