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
  summarize(span, offset)
  change(bytes)
  quote(span)
  if let (flow, payload) = try? UDPv6Frame.decode(span) {
    promise(
      payload.lowerBound >= UDPv6Frame.headerLength && payload.upperBound <= bytes.count,
      "a payload is in its frame: \(flow)")
  }
  if let (flow, payload) = try? UDPFrame.decode(span) {
    promise(
      payload.lowerBound >= UDPFrame.headerLength && payload.upperBound <= bytes.count, "a payload is in its frame")
    checkEncoding(flow, payload.count)
  }
}

/// A line about whatever it is, of any length that somebody claims.
private func summarize(_ span: RawSpan, _ offset: Int) {
  promise(FrameSummary(span).description.utf8.count < 300, "a line is short")
  promise(FrameSummary(span, frameLength: offset &* 7).description.utf8.count < 300, "a line is short")
}

/// Everything that a router may change, in memory with fences. A packet that could be read can be read afterwards.
private func change(_ bytes: [UInt8]) {
  var wasRead = false
  let after = written(bytes.count) { (span: inout MutableRawSpan) in
    for (index, byte) in bytes.enumerated() { try? span.storeUInt8(byte, at: index) }
    _ = try? { (span: inout MutableRawSpan) throws(PacketFormatError) in
      var frame = try MutableInternetFrame(&span)
      wasRead = true
      _ = frame.decrementHopLimit()
      _ = (frame.source, frame.destination, frame.sourcePort, frame.destinationPort, frame.echoIdentifier)
      frame.setStations(source: frame.header.destination, destination: frame.header.source)
      try? frame.setSource(IPv4Address(10, 0, 0, 1))
      try? frame.setSource(IPv6Address.allNodes)
      try? frame.setDestination(IPv4Address(10, 0, 0, 2))
      try? frame.setDestination(IPv6Address.loopback)
      try? frame.setSourcePort(0)
      try? frame.setDestinationPort(0xFFFF)
      try? frame.setEchoIdentifier(0)
    }(&span)
    _ = VLANTag.pop(from: &span)
  }
  promise(after.count == bytes.count && (!wasRead || bytes.count >= 34), "a frame that was changed was one")
}

/// Errors about the frame, which are never longer than the rules allow.
private func quote(_ span: RawSpan) {
  if let quote = try? ICMPv4Error.quote(span) {
    promise(quote.range.upperBound <= span.byteCount, "what is quoted is there")
    promise(quote.frontLength + quote.range.count <= 22 + 576, "an error is no longer than 576 bytes")
  }
  if let quote = try? ICMPv6Error.timeExceeded.quote(span) {
    promise(quote.range.upperBound <= span.byteCount, "what is quoted is there")
    promise(quote.frontLength + quote.range.count <= 22 + 1280, "an error is no longer than 1280 bytes")
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
  if let header = try? TaggedHeader(decoding: span) {
    let again = written(header.length) { (bytes: inout MutableRawSpan) in try? header.encode(into: &bytes) }
    promise(again == copy(span, 0, header.length), "\(header) is written as it was read")
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
