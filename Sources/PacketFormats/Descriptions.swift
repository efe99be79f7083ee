// What headers say of themselves, in logs and in failed expectations: fields by name, numbers as the field's people write them.

extension EthernetHeader: CustomStringConvertible {
  /// Who speaks to whom, and about what: `02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ARP`.
  public var description: String { "\(source) > \(destination), \(etherType)" }
}

extension ARPPacket: CustomStringConvertible {
  /// As tcpdump says it: `request who-has 10.0.0.1 tell 10.0.0.2`, `reply 10.0.0.1 is-at 02:00:00:00:00:01`.
  public var description: String {
    switch operation {
    case .request: "request who-has \(targetProtocolAddress) tell \(senderProtocolAddress)"
    case .reply: "reply \(senderProtocolAddress) is-at \(senderHardwareAddress)"
    default: "operation \(operation.rawValue) from \(senderProtocolAddress) to \(targetProtocolAddress)"
    }
  }
}

extension ARPPacket.Operation: CustomStringConvertible {
  /// `request`, `reply`, or the number.
  public var description: String {
    switch self {
    case .request: "request"
    case .reply: "reply"
    default: "\(rawValue)"
    }
  }
}

extension IPProtocol: CustomStringConvertible {
  /// The registry's short name, or `protocol` and the number.
  public var description: String {
    switch self {
    case .icmpv4: "ICMP"
    case .tcp: "TCP"
    case .udp: "UDP"
    case .icmpv6: "ICMP6"
    case .ipv6HopByHop: "HOPOPT"
    case .ipv6Routing: "IPv6-Route"
    case .ipv6Fragment: "IPv6-Frag"
    case .ipv6NoNextHeader: "no next header"
    case .ipv6DestinationOptions: "IPv6-Opts"
    default: "protocol \(rawValue)"
    }
  }
}

extension IPv4Header: CustomStringConvertible {
  /// `10.0.0.2 > 10.0.0.1, UDP, ttl 64, length 33`: the length is the packet's.
  public var description: String {
    "\(source) > \(destination), \(`protocol`), ttl \(timeToLive), length \(totalLength)"
  }
}

extension IPv6Header: CustomStringConvertible {
  /// `fd00::2 > fd00::1, UDP, hlim 64, length 13`: the length is the payload's, as in the header.
  public var description: String {
    "\(source) > \(destination), \(nextHeader), hlim \(hopLimit), length \(payloadLength)"
  }
}

extension UDPHeader: CustomStringConvertible {
  /// `5000 > 7, length 5`: the length is the payload's.
  public var description: String { "\(sourcePort) > \(destinationPort), length \(payloadLength)" }
}

extension UDPFrame: CustomStringConvertible {
  /// `02:00:00:00:00:02 > 02:00:00:00:00:01, 10.0.0.2.5000 > 10.0.0.1.7`.
  public var description: String {
    "\(sourceMAC) > \(destinationMAC), \(source).\(sourcePort) > \(destination).\(destinationPort)"
  }
}

extension ICMPv4Message: CustomStringConvertible {
  /// `echo request, id 1, seq 2, length 64`, or the type and the code by number.
  public var description: String {
    switch kind {
    case .echoRequest, .echoReply:
      "echo \(kind == .echoRequest ? "request" : "reply"), id \(identifier), seq \(sequenceNumber), length \(length)"
    default: "type \(kind.rawValue), code \(code), length \(length)"
    }
  }
}

extension ICMPv6Message: CustomStringConvertible {
  /// `echo request, id 1, seq 2, length 64`, or the type and the code by number.
  public var description: String {
    switch kind {
    case .echoRequest, .echoReply:
      "echo \(kind == .echoRequest ? "request" : "reply"), id \(identifier), seq \(sequenceNumber), length \(length)"
    default: "type \(kind.rawValue), code \(code), length \(length)"
    }
  }
}

extension NeighborMessage: CustomStringConvertible {
  /// `neighbor solicitation, who has fd00::1, from 02:00:00:00:00:02`.
  public var description: String {
    let what = isAdvertisement ? "neighbor advertisement, \(target)" : "neighbor solicitation, who has \(target)"
    guard let hardwareAddress else { return what }
    return what + (isAdvertisement ? " is-at " : ", from ") + "\(hardwareAddress)"
  }
}

extension InternetChecksum: CustomStringConvertible {
  /// The checksum so far, in hexadecimal: `0x1c46`.
  public var description: String {
    let digits = String(value, radix: 16)
    return "0x" + String(repeating: "0", count: 4 - digits.count) + digits
  }
}
