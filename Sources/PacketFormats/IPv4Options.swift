/// A judgement on the options of an IPv4 header (RFC 791 §3.1).
///
/// Hosts that answer packets need to know only this much: whether the options are well formed, and whether one of them is a
/// source route, which lets the sender steer the answer past a filter (RFC 7126 §4.3, §4.4: drop). Nothing in the options is
/// used for anything else, so a byte that changes after the judgement changes no decision.
public enum IPv4Options {
  /// Walks the options of the header at `offset`, which is `header` as decoded there.
  ///
  /// Throws `ipOptions` if an option runs over the end of the header, has a length below 2, or is missing its length;
  /// `ipSourceRoute` for a loose or strict source route; `truncated` if the header is not inside the bytes.
  public static func check(
    _ bytes: RawSpan, at offset: Int = 0, header: IPv4Header
  ) throws(PacketFormatError) {
    guard bytes.holds(header.headerLength, at: offset) else {
      throw .truncated(header.headerLength, at: offset, of: bytes.byteCount)
    }
    let end = offset &+ header.headerLength
    var position = offset &+ IPv4Header.minimumLength
    while position < end {
      let kind = bytes.loadUInt8(inside: position)
      switch kind {
      case 0:  // End of option list: the rest is padding.
        return
      case 1:  // No operation, the other option of a single byte.
        position &+= 1
      default:
        guard end &- position >= 2 else { throw PacketFormatError(.ipOptions, .number(UInt64(kind))) }
        let length = Int(bytes.loadUInt8(inside: position &+ 1))
        guard length >= 2, length <= end &- position else {
          throw PacketFormatError(.ipOptions, .length(length, limit: end &- position))
        }
        // Loose (131) and strict (137) source and record route.
        guard kind != 131, kind != 137 else { throw PacketFormatError(.ipSourceRoute, .number(UInt64(kind))) }
        position &+= length
      }
    }
  }
}
