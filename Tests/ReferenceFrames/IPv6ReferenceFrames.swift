package import PacketFormats

// The second opinion of `ReferenceFrames.swift`, for IPv6: frames built byte by byte, sums taken word by word.

extension Here {
  package static let ipv6Bytes: [UInt8] = [0xFD, 0] + [UInt8](repeating: 0, count: 13) + [1]
  package static let ipv6 = IPv6Address(high: 0xFD00_0000_0000_0000, low: 1)
  /// What the MAC address gives: 02 becomes 00, ff:fe in the middle.
  package static let linkLocalBytes: [UInt8] = [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFE, 0, 0, 1]
  package static let linkLocal = IPv6Address(high: 0xFE80_0000_0000_0000, low: 0xFF_FE00_0001)
}

extension There {
  package static let ipv6Bytes: [UInt8] = [0xFD, 0] + [UInt8](repeating: 0, count: 13) + [2]
  package static let ipv6 = IPv6Address(high: 0xFD00_0000_0000_0000, low: 2)
  package static let linkLocalBytes: [UInt8] = [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFE, 0, 0, 2]
}

/// Addresses as bytes.
package enum IPv6Bytes {
  package static let unspecified = [UInt8](repeating: 0, count: 16)
  package static let loopback = [UInt8](repeating: 0, count: 15) + [1]
  package static let mapped = [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 10, 0, 0, 2]
  package static let allNodes: [UInt8] = [0xFF, 2] + [UInt8](repeating: 0, count: 13) + [1]
  package static let allRouters: [UInt8] = [0xFF, 2] + [UInt8](repeating: 0, count: 13) + [2]

  package static func solicitedNode(_ address: [UInt8]) -> [UInt8] {
    [0xFF, 2] + [UInt8](repeating: 0, count: 9) + [1, 0xFF] + address.suffix(3)
  }

  package static func multicastMAC(_ address: [UInt8]) -> [UInt8] { [0x33, 0x33] + address.suffix(4) }
}

/// An IPv6 packet in an Ethernet frame, right in every field unless told otherwise.
package struct IPv6Frame {
  package var destinationMAC: [UInt8]
  package var sourceMAC: [UInt8]
  package var etherType: [UInt8]
  package var version: Int
  package var trafficClass: UInt8
  package var flowLabel: Int
  package var payloadLength: Int?
  package var hopLimit: UInt8
  package var source: [UInt8]
  package var destination: [UInt8]
  /// Extension headers: the number of each, and its bytes, of which the first is left to be filled in.
  package var extensions: [(number: UInt8, bytes: [UInt8])]
  package var proto: UInt8
  package var payload: [UInt8]
  package var padding: [UInt8]

  package init(
    destinationMAC: [UInt8] = Here.macBytes, sourceMAC: [UInt8] = There.macBytes, etherType: [UInt8] = [0x86, 0xDD],
    version: Int = 6, trafficClass: UInt8 = 0, flowLabel: Int = 0x12345, payloadLength: Int? = nil, hopLimit: UInt8 = 3,
    source: [UInt8] = There.ipv6Bytes, destination: [UInt8] = Here.ipv6Bytes,
    extensions: [(number: UInt8, bytes: [UInt8])] = [], proto: UInt8 = 17, payload: [UInt8] = [], padding: [UInt8] = []
  ) {
    self.destinationMAC = destinationMAC
    self.sourceMAC = sourceMAC
    self.etherType = etherType
    self.version = version
    self.trafficClass = trafficClass
    self.flowLabel = flowLabel
    self.payloadLength = payloadLength
    self.hopLimit = hopLimit
    self.source = source
    self.destination = destination
    self.extensions = extensions
    self.proto = proto
    self.payload = payload
    self.padding = padding
  }

  package var header: [UInt8] {
    let numbers = extensions.map(\.number) + [proto]
    let chain = extensions.enumerated().flatMap { [numbers[$0.offset + 1]] + $0.element.bytes.dropFirst() }
    var header = bigEndian(version << 28 | Int(trafficClass) << 20 | flowLabel, 4)
    header += bigEndian(payloadLength ?? (chain.count + payload.count), 2) + [numbers[0], hopLimit]
    return header + source + destination + chain
  }

  package var bytes: [UInt8] {
    destinationMAC + sourceMAC + etherType + header + payload + padding
  }

  /// The checksum over the pseudo-header of RFC 8200 §8.1 and a message.
  package static func checksum(_ source: [UInt8], _ destination: [UInt8], _ proto: UInt8, _ message: [UInt8]) -> UInt16
  {
    referenceChecksum(source + destination + bigEndian(message.count, 4) + [0, 0, 0, proto] + message)
  }

  /// A UDP datagram; `checksum` nil is the right one.
  package static func udp(
    from sourcePort: UInt16 = 5000, to destinationPort: UInt16 = 7, _ data: [UInt8] = Array("hello".utf8),
    length: Int? = nil, checksum: UInt16? = nil, checksumError: UInt16 = 0, surplus: [UInt8] = [],
    _ change: (inout IPv6Frame) -> Void = { _ in }
  ) -> IPv6Frame {
    var frame = IPv6Frame()
    change(&frame)
    let length = bigEndian(length ?? (8 + data.count), 2)
    var datagram = bigEndian(sourcePort, 2) + bigEndian(destinationPort, 2) + length + [0, 0] + data
    var right = Self.checksum(frame.source, frame.destination, 17, datagram)
    if right == 0 { right = 0xFFFF }
    datagram.replaceSubrange(6..<8, with: bigEndian(checksum ?? (right &+ checksumError), 2))
    frame.payload = datagram + surplus
    return frame
  }

  /// An ICMP message of any type: four bytes behind the checksum, then the body.
  package static func icmp(
    kind: UInt8 = 128, code: UInt8 = 0, rest: [UInt8] = [0xBE, 0xEF, 0, 1], _ body: [UInt8] = Array("abcdefg".utf8),
    checksumError: UInt16 = 0, _ change: (inout IPv6Frame) -> Void = { _ in }
  ) -> IPv6Frame {
    var frame = IPv6Frame()
    frame.proto = 58
    change(&frame)
    var message = [kind, code, 0, 0] + rest + body
    let right = Self.checksum(frame.source, frame.destination, 58, message)
    message.replaceSubrange(2..<4, with: bigEndian(right &+ checksumError, 2))
    frame.payload = message
    return frame
  }

  /// A neighbor solicitation for the responder's address, sent to its group.
  package static func solicitation(
    target: [UInt8] = Here.ipv6Bytes, code: UInt8 = 0, options: [UInt8] = [1, 1] + There.macBytes,
    _ change: (inout IPv6Frame) -> Void = { _ in }
  ) -> IPv6Frame {
    icmp(kind: 135, code: code, rest: [0, 0, 0, 0], target + options) {
      $0.hopLimit = 255
      $0.destination = IPv6Bytes.solicitedNode(target)
      change(&$0)
      if $0.destination[0] == 0xFF { $0.destinationMAC = IPv6Bytes.multicastMAC($0.destination) }
    }
  }

  /// The same from a host that has no address yet.
  package static func probe(
    target: [UInt8] = Here.ipv6Bytes, options: [UInt8] = [], _ change: (inout IPv6Frame) -> Void = { _ in }
  ) -> IPv6Frame {
    solicitation(target: target, options: options) {
      $0.source = IPv6Bytes.unspecified
      change(&$0)
    }
  }

  /// A neighbor advertisement of the neighbor, to the responder.
  package static func advertisement(
    target: [UInt8] = There.ipv6Bytes, code: UInt8 = 0, flags: UInt8 = 0x60,
    options: [UInt8] = [2, 1] + There.macBytes, _ change: (inout IPv6Frame) -> Void = { _ in }
  ) -> IPv6Frame {
    icmp(kind: 136, code: code, rest: [flags, 0, 0, 0], target + options) {
      $0.hopLimit = 255
      change(&$0)
    }
  }

  /// The advertisement that answers for `target`, from first byte to last.
  package static func answer(for target: [UInt8], to asker: [UInt8], mac: [UInt8] = There.macBytes, flags: UInt8 = 0x60)
    -> [UInt8]
  {
    advertisement(target: target, flags: flags, options: [2, 1] + Here.macBytes) {
      ($0.sourceMAC, $0.destinationMAC) = (Here.macBytes, mac)
      ($0.source, $0.destination, $0.flowLabel) = (target, asker, 0)
    }.bytes
  }
}
