public import PacketFormats

// ARP and neighbor discovery as packets that can be sent.

extension ARPPacket {
  /// A frame with this packet: a request to all stations of the link, a reply to the target's.
  ///
  /// - Parameters:
  ///   - pool: where the buffer comes from: that of the queue which sends it.
  ///   - neighbor: another station to send it to.
  /// - Throws: `truncated` in form only: the buffer is made to measure.
  public func makePacket(in pool: PacketPool, to neighbor: MACAddress? = nil) throws(PacketFormatError) -> Packet {
    try Packet(building: ARPPacket.frameLength, in: pool) { (bytes) throws(PacketFormatError) in
      try encodeFrame(into: &bytes, to: neighbor)
    }
  }
}

extension NeighborSolicitation {
  /// A frame with this question.
  ///
  /// - Parameters:
  ///   - pool: where the buffer comes from: that of the queue which sends it.
  ///   - neighbor: the one station to ask; nil asks the group in which the target listens.
  /// - Throws: `truncated` in form only: the buffer is made to measure.
  public func makePacket(in pool: PacketPool, to neighbor: MACAddress? = nil) throws(PacketFormatError) -> Packet {
    try Packet(building: frameLength, in: pool) { (bytes) throws(PacketFormatError) in
      try encodeFrame(into: &bytes, to: neighbor)
    }
  }
}

extension NeighborAdvertisement {
  /// A frame with this answer, or announcement.
  ///
  /// - Parameters:
  ///   - pool: where the buffer comes from: that of the queue which sends it.
  ///   - destination: who has asked; nil tells all nodes of the link.
  ///   - neighbor: the station of who has asked; nil for all nodes.
  /// - Throws: `neighborFlags` for an answer to all nodes.
  public func makePacket(
    in pool: PacketPool, to destination: IPv6Address? = nil, at neighbor: MACAddress? = nil
  ) throws(PacketFormatError) -> Packet {
    try Packet(building: NeighborAdvertisement.frameLength, in: pool) { (bytes) throws(PacketFormatError) in
      try encodeFrame(into: &bytes, to: destination, at: neighbor)
    }
  }
}
