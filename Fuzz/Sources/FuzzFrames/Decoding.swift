import FuzzSupport
import PacketFormats

/// Decodes bytes as everything that they could be, at an offset that may be behind their end; what can be encoded reads as it
/// was written.
func decode(_ bytes: [UInt8], at offset: Int) {
  let room = FencedMemory(bytes.count, alignment: 1)
  bytes.withUnsafeBytes { if let start = $0.baseAddress { room.start.copyMemory(from: start, byteCount: $0.count) } }
  let span = UnsafeRawBufferPointer(start: room.start, count: room.count).bytes
  decodeLink(span, offset)
  decodeIPv4(span, offset)
  decodeIPv6(span, offset)
  if let (flow, payload) = try? UDPFrame.decode(span) {
    promise(
      payload.lowerBound >= UDPFrame.headerLength && payload.upperBound <= bytes.count, "a payload is in its frame")
    checkEncoding(flow, payload.count)
  }
}

private func decodeLink(_ span: RawSpan, _ offset: Int) {
  if let header = try? EthernetHeader(decoding: span, at: offset) {
    let again = written(EthernetHeader.length) { (bytes: inout MutableRawSpan) in try? header.encode(into: &bytes) }
    promise(again == copy(span, offset, EthernetHeader.length), "\(header) is written as it was read")
  }
  if let packet = try? ARPPacket(decoding: span, at: offset) {
    let again = written(ARPPacket.length) { (bytes: inout MutableRawSpan) in try? packet.encode(into: &bytes) }
    promise(again == copy(span, offset, ARPPacket.length), "\(packet) is written as it was read")
  }
  _ = MACAddress(decoding: span, at: offset)?.description
  _ = IPv4Address(decoding: span, at: offset)?.description
  if let address = IPv6Address(decoding: span, at: offset) {
    promise(IPv6Address(address.description) == address, "\(address) reads as it was written")
  }
}

private func decodeIPv4(_ span: RawSpan, _ offset: Int) {
  guard let header = try? IPv4Header(decoding: span, at: offset) else { return }
  promise(header.headerLength >= 20 && header.payloadLength >= 0, "lengths are lengths")
  promise(offset + header.totalLength <= span.byteCount, "a packet is in its bytes")
  try? IPv4Options.check(span, at: offset, header: header)
  let start = offset + header.headerLength
  if let message = try? ICMPv4Message(decoding: span, at: start, length: header.payloadLength) {
    promise(message.length <= header.payloadLength, "a message is in its packet")
  }
  if let datagram = try? UDPHeader(
    decoding: span, at: start, available: header.payloadLength, pseudoHeader: header.pseudoHeader)
  {
    promise(datagram.datagramLength <= header.payloadLength, "a datagram is in its packet")
  }
  let again = written(20) { (bytes: inout MutableRawSpan) in try? header.encode(into: &bytes) }
  promise(slowChecksum(again) == 0 || header.hasOptions, "a header is written with its checksum")
}

private func decodeIPv6(_ span: RawSpan, _ offset: Int) {
  guard let header = try? IPv6Header(decoding: span, at: offset) else { return }
  let again = written(IPv6Header.length) { (bytes: inout MutableRawSpan) in try? header.encode(into: &bytes) }
  promise(again == copy(span, offset, IPv6Header.length), "\(header) is written as it was read")
  guard let payload = try? IPv6Payload(decoding: span, at: offset, header: header) else { return }
  promise(
    payload.offset >= offset + 40 && payload.length >= 0
      && payload.offset + payload.length == offset + 40 + header.payloadLength, "a payload ends with its packet")
  _ = try? UDPHeader(
    decoding: span, at: payload.offset, available: payload.length, pseudoHeader: header.pseudoHeader(for: .udp))
  guard
    let message = try? ICMPv6Message(
      decoding: span, at: payload.offset, length: payload.length, pseudoHeader: header.pseudoHeader(for: .icmpv6))
  else { return }
  _ = try? NeighborMessage(decoding: span, header: header, payload: payload, message: message)
}

/// Builds the headers of a flow anew and takes them apart again.
private func checkEncoding(_ flow: UDPFrame, _ payloadLength: Int) {
  let frame = written(UDPFrame.headerLength + payloadLength) { (bytes: inout MutableRawSpan) in
    _ = try? flow.encode(into: &bytes, payloadLength: payloadLength)
  }
  frame.withUnsafeBytes { bytes in
    guard let (again, payload) = try? UDPFrame.decode(bytes.bytes) else { violated("\(flow) can be read") }
    promise(again == flow && payload.count == payloadLength, "\(flow) reads as it was written")
  }
}

private func copy(_ span: RawSpan, _ offset: Int, _ count: Int) -> [UInt8] {
  span.withUnsafeBytes { Array($0[offset..<offset + count]) }
}

private func written(_ count: Int, _ body: (inout MutableRawSpan) -> Void) -> [UInt8] {
  let room = FencedMemory(count, alignment: 1)
  var span = UnsafeMutableRawBufferPointer(start: room.start, count: count).mutableBytes
  body(&span)
  return room.bytes
}

/// Reads bytes as the text of every kind of address; what was read reads as it was written.
func parse(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  if let address = MACAddress(text) {
    promise(MACAddress(address.description) == address, "\(address) reads as written")
  }
  if let address = IPv4Address(text) {
    promise(IPv4Address(address.description) == address, "\(address) reads as written")
  }
  if let address = IPv6Address(text) {
    promise(IPv6Address(address.description) == address, "\(address) reads as written")
  }
  if let network = IPv4Network(text) {
    promise(IPv4Network(network.description) == network, "\(network) reads as written")
  }
  if let network = IPv6Network(text) {
    promise(IPv6Network(network.description) == network, "\(network) reads as written")
  }
}
