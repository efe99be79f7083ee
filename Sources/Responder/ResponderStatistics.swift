/// What became of the frames a ``Responder`` has seen: every frame is counted exactly once.
///
/// A value of fixed size: counting is an addition in a table, without allocation. Statistics of several queues are added up
/// with `+=`.
public struct ResponderStatistics: Sendable {
  /// ARP requests answered.
  public internal(set) var arpReplies: UInt64 = 0
  /// Neighbor solicitations answered.
  public internal(set) var neighborReplies: UInt64 = 0
  /// ICMP echo requests answered, of IPv4 and IPv6.
  public internal(set) var icmpEchoReplies: UInt64 = 0
  /// UDP datagrams echoed, over IPv4 and IPv6.
  public internal(set) var udpEchoReplies: UInt64 = 0
  /// Frames that are well formed as far as they were looked at, and not the responder's to answer.
  public internal(set) var delivered: UInt64 = 0

  // One row per reason, and a power of two of them, so that the index needs a mask and no check.
  private var drops = InlineArray<64, UInt64>(repeating: 0)

  /// Statistics of nothing.
  public init() {}

  /// Frames dropped for one reason.
  public func dropped(_ reason: DropReason) -> UInt64 {
    drops[Int(reason.rawValue & 63)]
  }

  /// Frames dropped for any reason.
  public var dropped: UInt64 {
    var total: UInt64 = 0
    for row in drops.indices { total &+= drops[row] }
    return total
  }

  /// Frames answered.
  public var replies: UInt64 { arpReplies &+ neighborReplies &+ icmpEchoReplies &+ udpEchoReplies }

  /// All frames seen.
  public var frames: UInt64 { replies &+ delivered &+ dropped }

  mutating func countDrop(_ reason: DropReason) {
    drops[Int(reason.rawValue & 63)] &+= 1
  }

  /// Adds the counts of another responder, for example of another queue.
  public static func += (left: inout ResponderStatistics, right: ResponderStatistics) {
    left.arpReplies &+= right.arpReplies
    left.neighborReplies &+= right.neighborReplies
    left.icmpEchoReplies &+= right.icmpEchoReplies
    left.udpEchoReplies &+= right.udpEchoReplies
    left.delivered &+= right.delivered
    for row in left.drops.indices { left.drops[row] &+= right.drops[row] }
  }
}

extension ResponderStatistics: CustomStringConvertible {
  /// One line: the answers, then every reason that has a count.
  public var description: String {
    var text =
      "arp \(arpReplies), neighbor \(neighborReplies), icmp echo \(icmpEchoReplies), udp echo \(udpEchoReplies)"
    text += ", delivered \(delivered), dropped \(dropped)"
    for reason in DropReason.allCases where dropped(reason) > 0 {
      text += ", \(reason) \(dropped(reason))"
    }
    return text
  }
}
