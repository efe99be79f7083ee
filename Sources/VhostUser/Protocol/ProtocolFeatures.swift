/// The protocol's own features, by their bits in the vhost-user document.
package struct ProtocolFeatures: OptionSet, Hashable, Sendable {
  package let rawValue: UInt64

  package init(rawValue: UInt64) { self.rawValue = rawValue }

  package static let mq = ProtocolFeatures(rawValue: 1 << 0)
  package static let replyAck = ProtocolFeatures(rawValue: 1 << 3)
  package static let netMTU = ProtocolFeatures(rawValue: 1 << 4)
  package static let backendReq = ProtocolFeatures(rawValue: 1 << 5)
  package static let config = ProtocolFeatures(rawValue: 1 << 9)
  package static let backendSendFD = ProtocolFeatures(rawValue: 1 << 10)
  package static let configureMemSlots = ProtocolFeatures(rawValue: 1 << 15)
  package static let status = ProtocolFeatures(rawValue: 1 << 16)

  /// What this front-end knows how to use.
  package static let understood: ProtocolFeatures = [
    .mq, .replyAck, .netMTU, .backendReq, .config, .backendSendFD, .configureMemSlots, .status,
  ]

  /// What to accept of an offer: descriptors on the back-end's channel need the channel (vhost-user, "Protocol features").
  static func accepted(of offered: ProtocolFeatures) -> ProtocolFeatures {
    var accepted = offered.intersection(.understood)
    if !accepted.contains(.backendReq) { accepted.remove(.backendSendFD) }
    return accepted
  }
}

extension ProtocolFeatures: CustomStringConvertible {
  private static let names: [(ProtocolFeatures, String)] = [
    (.mq, "MQ"), (.replyAck, "REPLY_ACK"), (.netMTU, "NET_MTU"), (.backendReq, "BACKEND_REQ"), (.config, "CONFIG"),
    (.backendSendFD, "BACKEND_SEND_FD"), (.configureMemSlots, "CONFIGURE_MEM_SLOTS"), (.status, "STATUS"),
  ]

  /// The names of the bits that have one here, and the others as a number.
  package var description: String {
    var words = Self.names.filter { contains($0.0) }.map { $0.1 }
    let rest = subtracting(.understood).rawValue
    if rest != 0 { words.append("0x" + String(rest, radix: 16)) }
    return "[" + words.joined(separator: ", ") + "]"
  }
}
