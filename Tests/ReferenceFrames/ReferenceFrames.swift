package import PacketFormats
package import Testing

// A second, slow opinion: frames built byte by byte, and sums taken word by word as RFC 1071 §4.1 spells them out. It shares no
// code with what is tested, except for the calls that hand over the bytes.

/// The checksum of RFC 1071, one 16-bit word after the other.
package func referenceChecksum(_ bytes: some Sequence<UInt8>) -> UInt16 {
  var sum = 0
  var isHigh = true
  for byte in bytes {
    sum += isHigh ? Int(byte) << 8 : Int(byte)
    isHigh.toggle()
  }
  while sum > 0xFFFF { sum = (sum & 0xFFFF) + sum >> 16 }
  return UInt16(0xFFFF - sum)
}

package func bigEndian(_ value: some BinaryInteger, _ count: Int) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - $0))) }
}

package func number(_ bytes: ArraySlice<UInt8>) -> Int {
  bytes.reduce(0) { $0 << 8 | Int($1) }
}

/// Bytes from hexadecimal text; spaces do not matter.
package func hex(_ text: String) -> [UInt8] {
  let digits = text.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

extension [UInt8] {
  /// The bytes as a raw span. Bytes have no padding between them that could be uninitialised, which is what makes the general
  /// case unsafe.
  package var raw: RawSpan {
    @_lifetime(borrow self)
    get { unsafe span.bytes }
  }
}

/// The responder's station and host, and the neighbour that speaks to it.
package enum Here {
  package static let macBytes: [UInt8] = [0x02, 0, 0, 0, 0, 0x01]
  package static let ipBytes: [UInt8] = [10, 0, 0, 1]
  package static let mac = MACAddress(0x02, 0, 0, 0, 0, 0x01)
  package static let ip = IPv4Address(10, 0, 0, 1)
}

package enum There {
  package static let macBytes: [UInt8] = [0x02, 0, 0, 0, 0, 0x02]
  package static let ipBytes: [UInt8] = [10, 0, 0, 2]
  package static let mac = MACAddress(0x02, 0, 0, 0, 0, 0x02)
  package static let ip = IPv4Address(10, 0, 0, 2)
}

/// An IPv4 packet in an Ethernet frame, right in every field unless told otherwise.
package struct IPv4Frame {
  package var destinationMAC: [UInt8]
  package var sourceMAC: [UInt8]
  package var etherType: [UInt8]
  package var version: Int
  /// In words of four bytes; otherwise what the options need.
  package var headerWords: Int?
  package var trafficClass: UInt8
  package var totalLength: Int?
  package var identification: UInt16
  package var fragmentField: UInt16
  package var timeToLive: UInt8
  package var proto: UInt8
  /// Added to the right header checksum.
  package var checksumError: UInt16
  package var source: [UInt8]
  package var destination: [UInt8]
  package var options: [UInt8]
  package var payload: [UInt8]
  package var padding: [UInt8]

  package init(
    destinationMAC: [UInt8] = Here.macBytes, sourceMAC: [UInt8] = There.macBytes, etherType: [UInt8] = [0x08, 0x00],
    version: Int = 4, headerWords: Int? = nil, trafficClass: UInt8 = 0, totalLength: Int? = nil,
    identification: UInt16 = 0x1234, fragmentField: UInt16 = 0, timeToLive: UInt8 = 3, proto: UInt8 = 17,
    checksumError: UInt16 = 0, source: [UInt8] = There.ipBytes, destination: [UInt8] = Here.ipBytes,
    options: [UInt8] = [], payload: [UInt8] = [], padding: [UInt8] = []
  ) {
    self.destinationMAC = destinationMAC
    self.sourceMAC = sourceMAC
    self.etherType = etherType
    self.version = version
    self.headerWords = headerWords
    self.trafficClass = trafficClass
    self.totalLength = totalLength
    self.identification = identification
    self.fragmentField = fragmentField
    self.timeToLive = timeToLive
    self.proto = proto
    self.checksumError = checksumError
    self.source = source
    self.destination = destination
    self.options = options
    self.payload = payload
    self.padding = padding
  }

  package var header: [UInt8] {
    var header = [UInt8(version << 4 | (headerWords ?? 5 + options.count / 4)), trafficClass]
    header += bigEndian(totalLength ?? (20 + options.count + payload.count), 2)
    header += bigEndian(identification, 2) + bigEndian(fragmentField, 2) + [timeToLive, proto, 0, 0]
    header += source + destination + options
    let checksum = referenceChecksum(header.prefix(headerWords.map { 4 * $0 } ?? header.count)) &+ checksumError
    header.replaceSubrange(10..<12, with: bigEndian(checksum, 2))
    return header
  }

  package var bytes: [UInt8] {
    destinationMAC + sourceMAC + etherType + header + payload + padding
  }

  /// A UDP datagram; `checksum` nil is the right one.
  package static func udp(
    from sourcePort: UInt16 = 5000, to destinationPort: UInt16 = 7, _ data: [UInt8] = Array("hello".utf8),
    length: Int? = nil, checksum: UInt16? = nil, checksumError: UInt16 = 0, surplus: [UInt8] = [],
    _ change: (inout IPv4Frame) -> Void = { _ in }
  ) -> IPv4Frame {
    var frame = IPv4Frame()
    change(&frame)
    let length = bigEndian(length ?? (8 + data.count), 2)
    var datagram = bigEndian(sourcePort, 2) + bigEndian(destinationPort, 2) + length + [0, 0] + data
    var right = referenceChecksum(frame.source + frame.destination + [0, 17] + length + datagram)
    if right == 0 { right = 0xFFFF }
    datagram.replaceSubrange(6..<8, with: bigEndian(checksum ?? (right &+ checksumError), 2))
    frame.payload = datagram + surplus
    return frame
  }

  /// An ICMP message.
  package static func icmp(
    kind: UInt8 = 8, code: UInt8 = 0, identifier: UInt16 = 0xBEEF, sequence: UInt16 = 1,
    _ data: [UInt8] = Array("abcdefg".utf8), checksumError: UInt16 = 0, _ change: (inout IPv4Frame) -> Void = { _ in }
  ) -> IPv4Frame {
    var frame = IPv4Frame()
    frame.proto = 1
    change(&frame)
    var message = [kind, code, 0, 0] + bigEndian(identifier, 2) + bigEndian(sequence, 2) + data
    message.replaceSubrange(2..<4, with: bigEndian(referenceChecksum(message) &+ checksumError, 2))
    frame.payload = message
    return frame
  }
}

/// An ARP packet in an Ethernet frame, a request for the responder's address unless told otherwise.
package struct ARPFrame {
  package var destinationMAC: [UInt8]
  package var sourceMAC: [UInt8]
  package var hardwareType: UInt16
  package var protocolType: UInt16
  package var lengths: [UInt8]
  package var operation: UInt16
  package var senderMAC: [UInt8]
  package var senderIP: [UInt8]
  package var targetMAC: [UInt8]
  package var targetIP: [UInt8]
  package var padding: [UInt8]

  package init(
    destinationMAC: [UInt8] = [UInt8](repeating: 0xFF, count: 6), sourceMAC: [UInt8] = There.macBytes,
    hardwareType: UInt16 = 1, protocolType: UInt16 = 0x0800, lengths: [UInt8] = [6, 4], operation: UInt16 = 1,
    senderMAC: [UInt8] = There.macBytes, senderIP: [UInt8] = There.ipBytes,
    targetMAC: [UInt8] = [UInt8](repeating: 0, count: 6), targetIP: [UInt8] = Here.ipBytes,
    padding: [UInt8] = [UInt8](repeating: 0, count: 18)
  ) {
    self.destinationMAC = destinationMAC
    self.sourceMAC = sourceMAC
    self.hardwareType = hardwareType
    self.protocolType = protocolType
    self.lengths = lengths
    self.operation = operation
    self.senderMAC = senderMAC
    self.senderIP = senderIP
    self.targetMAC = targetMAC
    self.targetIP = targetIP
    self.padding = padding
  }

  package var bytes: [UInt8] {
    let addressSpace = bigEndian(hardwareType, 2) + bigEndian(protocolType, 2) + lengths
    return destinationMAC + sourceMAC + [0x08, 0x06] + addressSpace + bigEndian(operation, 2) + senderMAC + senderIP
      + targetMAC + targetIP + padding
  }
}

/// Runs `body` on the bytes as a mutable span.
package func withMutableSpan<Value>(
  _ bytes: inout [UInt8], _ body: (inout MutableRawSpan) throws(PacketFormatError) -> Value
) throws(PacketFormatError) -> Value {
  var span = bytes.mutableSpan
  // Bytes have no padding between them that could be uninitialised.
  var raw = unsafe span.mutableBytes
  return try body(&raw)
}

/// The body must throw a format error of this reason.
package func expectError<Value>(
  _ reason: PacketFormatError.Reason, _ comment: @autoclosure () -> Comment? = nil,
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Value
) {
  let error = #expect(throws: PacketFormatError.self, comment(), sourceLocation: sourceLocation) { _ = try body() }
  guard let error else { return }
  #expect(error.reason == reason, comment(), sourceLocation: sourceLocation)
}
