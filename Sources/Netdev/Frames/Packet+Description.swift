internal import PacketFormats

extension Packet: CustomStringConvertible {
  /// One line of tcpdump's kind, for logs and for people:
  /// `02:00:00:00:00:02 > 02:00:00:00:00:01, IPv4, length 47: 10.0.0.2.5000 > 10.0.0.1.7: UDP, length 5`.
  ///
  /// It is made of a copy of the frame's front, so a device that still writes to the buffer cannot make it read elsewhere, and
  /// a frame in several buffers is not put together for it.
  public var description: String {
    var prefix: [UInt8] = []
    withSegments { segment in
      let wanted = FrameSummary.prefixLength - prefix.count
      if wanted > 0 { prefix.append(contentsOf: segment.extracting(first: wanted).copied()) }
    }
    // An array of bytes has no padding, so all of it is initialized.
    return unsafe FrameSummary(prefix.span.bytes, frameLength: count).description
  }
}
