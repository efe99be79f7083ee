public import PacketFormats

extension Packet {
  /// Changes the packet of IPv4 or IPv6 in this frame: addresses, ports, hop limit, with their checksums. In place if this is the
  /// only reference to it, else in a copy.
  ///
  /// ```swift
  /// let mayPass = try packet.withMutableInternetFrame { $0.decrementHopLimit() }
  /// ```
  ///
  /// A frame that is none is found out before anything is copied.
  ///
  /// - Throws: what `MutableInternetFrame` throws when it is made, and what `body` throws.
  public mutating func withMutableInternetFrame<Result: ~Copyable>(
    _ body: (inout MutableInternetFrame) throws(PacketFormatError) -> Result
  ) throws(PacketFormatError) -> Result {
    let type = try withBytes { (bytes) throws(PacketFormatError) in try TaggedHeader(decoding: bytes).etherType }
    guard type == .ipv4 || type == .ipv6 else { throw PacketFormatError(.otherProtocol, .etherType(type)) }
    return try withMutableBytes { (bytes) throws(PacketFormatError) in
      var frame = try MutableInternetFrame(&bytes)
      return try body(&frame)
    }
  }
}
