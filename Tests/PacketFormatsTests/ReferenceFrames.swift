import PacketFormats
import Responder
import Testing

// A second, slow opinion: frames built byte by byte, and sums taken word by word as RFC 1071 §4.1 spells them out. It shares no
// code with what is tested, except for the calls that hand over the bytes.

/// The checksum of RFC 1071, one 16-bit word after the other.
func referenceChecksum(_ bytes: some Sequence<UInt8>) -> UInt16 {
  var sum = 0
  var isHigh = true
  for byte in bytes {
    sum += isHigh ? Int(byte) << 8 : Int(byte)
    isHigh.toggle()
  }
  while sum > 0xFFFF { sum = (sum & 0xFFFF) + sum >> 16 }
  return UInt16(0xFFFF - sum)
}

func bigEndian(_ value: some BinaryInteger, _ count: Int) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - $0))) }
}

func number(_ bytes: ArraySlice<UInt8>) -> Int {
  bytes.reduce(0) { $0 << 8 | Int($1) }
}

/// Bytes from hexadecimal text; spaces do not matter.
func hex(_ text: String) -> [UInt8] {
  let digits = text.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

extension [UInt8] {
  /// The bytes as a raw span. Bytes have no padding between them that could be uninitialised, which is what makes the general
  /// case unsafe.
  var raw: RawSpan {
    @_lifetime(borrow self)
    get { unsafe span.bytes }
  }
}

/// The responder's station and host, and the neighbour that speaks to it.
enum Here {
  static let macBytes: [UInt8] = [0x02, 0, 0, 0, 0, 0x01]
  static let ipBytes: [UInt8] = [10, 0, 0, 1]
  static let mac = MACAddress(0x02, 0, 0, 0, 0, 0x01)
  static let ip = IPv4Address(10, 0, 0, 1)
}

enum There {
  static let macBytes: [UInt8] = [0x02, 0, 0, 0, 0, 0x02]
  static let ipBytes: [UInt8] = [10, 0, 0, 2]
  static let mac = MACAddress(0x02, 0, 0, 0, 0, 0x02)
  static let ip = IPv4Address(10, 0, 0, 2)
}

/// An IPv4 packet in an Ethernet frame, right in every field unless told otherwise.
struct IPv4Frame {
  var destinationMAC = Here.macBytes
  var sourceMAC = There.macBytes
  var etherType: [UInt8] = [0x08, 0x00]
  var version = 4
  /// In words of four bytes; otherwise what the options need.
  var headerWords: Int?
  var trafficClass: UInt8 = 0
  var totalLength: Int?
  var identification: UInt16 = 0x1234
  var fragmentField: UInt16 = 0
  var timeToLive: UInt8 = 3
  var proto: UInt8 = 17
  /// Added to the right header checksum.
  var checksumError: UInt16 = 0
  var source = There.ipBytes
  var destination = Here.ipBytes
  var options: [UInt8] = []
  var payload: [UInt8] = []
  var padding: [UInt8] = []

  var header: [UInt8] {
    var header = [UInt8(version << 4 | (headerWords ?? 5 + options.count / 4)), trafficClass]
    header += bigEndian(totalLength ?? (20 + options.count + payload.count), 2)
    header += bigEndian(identification, 2) + bigEndian(fragmentField, 2) + [timeToLive, proto, 0, 0]
    header += source + destination + options
    let checksum = referenceChecksum(header.prefix(headerWords.map { 4 * $0 } ?? header.count)) &+ checksumError
    header.replaceSubrange(10..<12, with: bigEndian(checksum, 2))
    return header
  }

  var bytes: [UInt8] {
    destinationMAC + sourceMAC + etherType + header + payload + padding
  }

  /// A UDP datagram; `checksum` nil is the right one.
  static func udp(
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
  static func icmp(
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
struct ARPFrame {
  var destinationMAC = [UInt8](repeating: 0xFF, count: 6)
  var sourceMAC = There.macBytes
  var hardwareType: UInt16 = 1
  var protocolType: UInt16 = 0x0800
  var lengths: [UInt8] = [6, 4]
  var operation: UInt16 = 1
  var senderMAC = There.macBytes
  var senderIP = There.ipBytes
  var targetMAC = [UInt8](repeating: 0, count: 6)
  var targetIP = Here.ipBytes
  var padding = [UInt8](repeating: 0, count: 18)

  var bytes: [UInt8] {
    let addressSpace = bigEndian(hardwareType, 2) + bigEndian(protocolType, 2) + lengths
    return destinationMAC + sourceMAC + [0x08, 0x06] + addressSpace + bigEndian(operation, 2) + senderMAC + senderIP
      + targetMAC + targetIP + padding
  }
}

/// Hands the bytes to a responder and takes them back.
func answer(_ responder: inout Responder, _ bytes: inout [UInt8], length: Int? = nil) -> Responder.Answer {
  let length = length ?? bytes.count
  var span = bytes.mutableSpan
  // Bytes have no padding between them that could be uninitialised.
  var raw = unsafe span.mutableBytes
  return responder.answer(&raw, length: length)
}

/// Runs `body` on the bytes as a mutable span.
func withMutableSpan<Value>(
  _ bytes: inout [UInt8], _ body: (inout MutableRawSpan) throws(PacketFormatError) -> Value
) throws(PacketFormatError) -> Value {
  var span = bytes.mutableSpan
  // Bytes have no padding between them that could be uninitialised.
  var raw = unsafe span.mutableBytes
  return try body(&raw)
}

/// The body must throw a format error of this reason.
func expectError<Value>(
  _ reason: PacketFormatError.Reason, _ comment: @autoclosure () -> Comment? = nil,
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Value
) {
  let error = #expect(throws: PacketFormatError.self, comment(), sourceLocation: sourceLocation) { _ = try body() }
  guard let error else { return }
  #expect(error.reason == reason, comment(), sourceLocation: sourceLocation)
}

/// A responder at ``Here``.
func makeResponder(udpEcho: UDPEchoPorts = .all) throws -> Responder {
  try makeResponder(addresses: ["10.0.0.1/24"], udpEcho: udpEcho)
}

func makeResponder(addresses: [String], udpEcho: UDPEchoPorts = .all) throws -> Responder {
  try Responder(macAddress: Here.mac, addresses: addresses.compactMap(IPv4Network.init), udpEcho: udpEcho)
}
