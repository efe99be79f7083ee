public import PacketFormats

// Errors of ICMP about a received packet, as packets that can be sent back.

extension ICMPv4Error {
  /// This error about `packet`, for its sender: `packet` itself, cut to what an error quotes, with the headers in front of it in
  /// the buffer's headroom.
  ///
  /// ```swift
  /// if let answer = try? ICMPv4Error.timeExceeded.makePacket(about: packet, from: own) { try await queue.submit(answer) }
  /// ```
  ///
  /// The stations of the frame are exchanged and its VLAN tags kept. How many errors to send in a second is the caller's
  /// choice; there must be some bound (RFC 1812 §4.3.2.8).
  ///
  /// - Parameters:
  ///   - packet: as it was received, Ethernet header included.
  ///   - source: who says so: an address of the router, or of the host.
  ///   - timeToLive: how many routers the error may pass.
  /// - Throws: what `ICMPv4Error.quote(_:)` throws, `unanswerable` above all: there is to be no error about this packet.
  public func makePacket(
    about packet: consuming Packet, from source: IPv4Address, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let quote = try packet.withBytes { (bytes) throws(PacketFormatError) in try ICMPv4Error.quote(bytes) }
    packet.cut(to: quote.range)
    try packet.prepend(quote.frontLength) { (bytes) throws(PacketFormatError) in
      try encode(into: &bytes, quoting: quote, from: source, timeToLive: timeToLive)
    }
    return packet
  }

  /// This error about a frame that is not a packet, or is kept: in a buffer of its own.
  ///
  /// - Throws: what `ICMPv4Error.quote(_:)` throws.
  public func makePacket(
    about frame: RawSpan, from source: IPv4Address, in pool: PacketPool, timeToLive: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let quote = try ICMPv4Error.quote(frame)
    return try Packet(building: quote.frontLength + quote.range.count, in: pool) { (bytes) throws(PacketFormatError) in
      try bytes.store(frame.extracting(quote.range), at: quote.frontLength)
      return try encode(into: &bytes, quoting: quote, from: source, timeToLive: timeToLive)
    }
  }
}

extension ICMPv6Error {
  /// This error about `packet`, for its sender: `packet` itself, cut to what an error quotes, with the headers in front of it in
  /// the buffer's headroom.
  ///
  /// The VLAN tags of the frame are kept. How many errors to send in a second is the caller's choice; there must be some bound
  /// (RFC 4443 §2.4 (f)).
  ///
  /// - Parameters:
  ///   - packet: as it was received, Ethernet header included.
  ///   - source: who says so: an address of the router, or of the host.
  ///   - station: the Ethernet source; nil takes the destination of the packet's frame.
  ///   - hopLimit: how many routers the error may pass.
  /// - Throws: what `ICMPv6Error.quote(_:)` throws, `unanswerable` above all: there is to be no error about this packet.
  public func makePacket(
    about packet: consuming Packet, from source: IPv6Address, station: MACAddress? = nil, hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let quote = try packet.withBytes { (bytes) throws(PacketFormatError) in try self.quote(bytes) }
    packet.cut(to: quote.range)
    try packet.prepend(quote.frontLength) { (bytes) throws(PacketFormatError) in
      try encode(into: &bytes, quoting: quote, from: source, station: station, hopLimit: hopLimit)
    }
    return packet
  }

  /// This error about a frame that is not a packet, or is kept: in a buffer of its own.
  ///
  /// - Throws: what `ICMPv6Error.quote(_:)` throws.
  public func makePacket(
    about frame: RawSpan, from source: IPv6Address, station: MACAddress? = nil, in pool: PacketPool,
    hopLimit: UInt8 = 64
  ) throws(PacketFormatError) -> Packet {
    let quote = try quote(frame)
    return try Packet(building: quote.frontLength + quote.range.count, in: pool) { (bytes) throws(PacketFormatError) in
      try bytes.store(frame.extracting(quote.range), at: quote.frontLength)
      return try encode(into: &bytes, quoting: quote, from: source, station: station, hopLimit: hopLimit)
    }
  }
}

extension Packet {
  /// Leaves these bytes of the frame.
  fileprivate mutating func cut(to range: Range<Int>) {
    truncate(to: range.upperBound)
    removeFirst(range.lowerBound)
  }
}
