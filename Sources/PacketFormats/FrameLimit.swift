/// How long a frame of a link may be, in both directions: the MTU, the Ethernet header, and for a frame with VLAN tags their
/// four bytes each, up to two tags (IEEE 802.1Q, 802.1ad).
///
/// An MTU is a limit of what a frame carries. Tags are not carried, they are added on the way, and a link that takes a frame
/// without them takes it with them.
@frozen
public struct FrameLimit: Sendable, Hashable {
  /// Tags that a frame may have beyond its limit.
  @inlinable public static var maximumTags: Int { 2 }
  /// Bytes of a tag.
  @inlinable public static var tagLength: Int { 4 }

  /// Longest frame without tags, in bytes.
  public let untagged: Int

  /// The limit of a link whose frames without tags have up to so many bytes; never negative.
  @inlinable
  public init(untagged: Int) { self.untagged = max(0, untagged) }

  /// The limit of a link with this MTU.
  @inlinable
  public init(mtu: Int) {
    let (sum, overflow) = max(0, mtu).addingReportingOverflow(EthernetHeader.length)
    self.init(untagged: overflow ? .max : sum)
  }

  /// Longest frame with all the tags that it may have, in bytes.
  @inlinable public var longest: Int {
    let (sum, overflow) = untagged.addingReportingOverflow(Self.maximumTags * Self.tagLength)
    return overflow ? .max : sum
  }

  /// Whether a frame of `length` bytes may pass. `start` has its first bytes, and is looked at only where tags make the
  /// difference: 18 of them tell.
  @inlinable
  public func admits(length: Int, startingWith start: RawSpan) -> Bool {
    // A difference of two that are not negative, the first of which is larger: it is one that there is.
    length <= untagged || (length <= longest && length - untagged <= Self.tagLength * Self.tags(of: start))
  }

  /// VLAN tags at the front of a frame, as far as they count for its limit: 0 to 2.
  @inlinable
  public static func tags(of start: RawSpan) -> Int {
    var tags = 0
    while tags < maximumTags {
      // Behind the two addresses, and behind each tag.
      let offset = 12 + tagLength * tags
      guard start.holds(2, at: offset), EtherType(rawValue: start.loadUInt16(inside: offset)).isVLANTag else { break }
      tags += 1
    }
    return tags
  }
}
