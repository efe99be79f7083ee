public import PacketFormats

// Datagrams as packets that can be sent.

extension UDPFrame {
  /// A packet with a datagram of this flow around a copy of `payload`, its checksums computed.
  ///
  /// - Parameters:
  ///   - payload: the bytes of the datagram; on a link of an MTU of 1500 at most 1472.
  ///   - pool: where the buffer comes from: that of the queue which sends it.
  ///   - timeToLive: how many routers it may pass.
  /// - Throws: `payloadTooLong` above 65493 bytes, which is what a frame of 65 535 holds.
  public func makePacket(
    payload: RawSpan, in pool: PacketPool, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let count = payload.byteCount
    try requireFrame(of: count, behind: UDPFrame.headerLength)
    return try Packet(building: UDPFrame.headerLength &+ count, in: pool) { (bytes) throws(PacketFormatError) in
      try bytes.store(payload, at: UDPFrame.headerLength)
      return try encode(into: &bytes, payloadLength: count, timeToLive: timeToLive)
    }
  }

  /// The same around an array.
  ///
  /// - Throws: `payloadTooLong`, as for a span.
  public func makePacket(
    payload: [UInt8], in pool: PacketPool, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    // An array of bytes has no padding, so all of it is initialized.
    try unsafe makePacket(payload: payload.span.bytes, in: pool, timeToLive: timeToLive)
  }

  /// The packet whose bytes are the payload, with the headers in front of them: in the buffer's headroom, without a copy, if
  /// this is the only reference to it.
  ///
  /// - Throws: `payloadTooLong` above 65493 bytes.
  public func makePacket(
    around payload: consuming Packet, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let count = payload.count
    try requireFrame(of: count, behind: UDPFrame.headerLength)
    try payload.prepend(UDPFrame.headerLength) { (bytes) throws(PacketFormatError) in
      try encode(into: &bytes, payloadLength: count, timeToLive: timeToLive)
    }
    return payload
  }
}

extension UDPv6Frame {
  /// A packet with a datagram of this flow around a copy of `payload`, its checksum computed.
  ///
  /// - Parameters:
  ///   - payload: the bytes of the datagram; on a link of an MTU of 1500 at most 1452.
  ///   - pool: where the buffer comes from: that of the queue which sends it.
  ///   - hopLimit: how many routers it may pass.
  /// - Throws: `payloadTooLong` above 65473 bytes, which is what a frame of 65 535 holds.
  public func makePacket(
    payload: RawSpan, in pool: PacketPool, hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let count = payload.byteCount
    try requireFrame(of: count, behind: UDPv6Frame.headerLength)
    return try Packet(building: UDPv6Frame.headerLength &+ count, in: pool) { (bytes) throws(PacketFormatError) in
      try bytes.store(payload, at: UDPv6Frame.headerLength)
      return try encode(into: &bytes, payloadLength: count, hopLimit: hopLimit)
    }
  }

  /// The same around an array.
  ///
  /// - Throws: `payloadTooLong`, as for a span.
  public func makePacket(
    payload: [UInt8], in pool: PacketPool, hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    // An array of bytes has no padding, so all of it is initialized.
    try unsafe makePacket(payload: payload.span.bytes, in: pool, hopLimit: hopLimit)
  }

  /// The packet whose bytes are the payload, with the headers in front of them: in the buffer's headroom, without a copy, if
  /// this is the only reference to it.
  ///
  /// - Throws: `payloadTooLong` above 65473 bytes.
  public func makePacket(
    around payload: consuming Packet, hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let count = payload.count
    try requireFrame(of: count, behind: UDPv6Frame.headerLength)
    try payload.prepend(UDPv6Frame.headerLength) { (bytes) throws(PacketFormatError) in
      try encode(into: &bytes, payloadLength: count, hopLimit: hopLimit)
    }
    return payload
  }
}

/// The longest frame is 65 535 bytes, whatever its length fields could say.
private func requireFrame(of count: Int, behind header: Int) throws(PacketFormatError) {
  let limit = 65_535 &- header
  guard count <= limit else { throw PacketFormatError(.payloadTooLong, .length(count, limit: limit)) }
}
