public import PacketFormats

// VLAN tags of packets: the twelve bytes of the addresses move, the rest of the frame stays where it is.

extension Packet {
  /// The first tag of the frame; nil for a frame without one.
  public var vlanTag: VLANTag? {
    withBytes { VLANTag(decoding: $0) }
  }

  /// Puts a tag in front of those that the frame has, in the buffer's headroom where it suffices.
  ///
  /// - Throws: `truncated` for a frame that is too short for two addresses, and `payloadTooLong` for one that has 65 532 bytes or
  ///   more; the frame stays as it is.
  public mutating func pushVLANTag(_ tag: VLANTag) throws(PacketFormatError) {
    guard count >= VLANTag.offset else {
      throw PacketFormatError(.truncated, .length(VLANTag.offset, limit: count))
    }
    try prepend(VLANTag.length) { (bytes) throws(PacketFormatError) in
      try tag.push(into: &bytes)
      return VLANTag.length
    }
  }

  /// Takes the first tag off; a frame without one stays as it is, and is not copied.
  public mutating func popVLANTag() -> VLANTag? {
    guard vlanTag != nil else { return nil }
    guard let tag = withMutableBytes({ VLANTag.pop(from: &$0) }) else { return nil }
    removeFirst(VLANTag.length)
    return tag
  }
}
