/// Frames dropped, by direction and reason.
public struct DropCounts: Sendable {
  private var transmitted = InlineArray<17, UInt64>(repeating: 0)
  private var received = InlineArray<17, UInt64>(repeating: 0)

  /// None yet.
  public init() {}

  /// Frames dropped on one way for one reason.
  public internal(set) subscript(direction: FrameDirection, reason: DropReason) -> UInt64 {
    get { direction == .transmitted ? transmitted[Int(reason.rawValue)] : received[Int(reason.rawValue)] }
    set {
      switch direction {
      case .transmitted: transmitted[Int(reason.rawValue)] = newValue
      case .received: received[Int(reason.rawValue)] = newValue
      }
    }
  }

  /// Frames dropped for one reason, on both ways.
  public subscript(reason: DropReason) -> UInt64 { self[.transmitted, reason] &+ self[.received, reason] }

  /// Frames dropped on one way, for any reason.
  public func total(_ direction: FrameDirection) -> UInt64 {
    DropReason.allCases.reduce(0) { $0 &+ self[direction, $1] }
  }

  /// Frames dropped, for any reason.
  public var total: UInt64 { total(.transmitted) &+ total(.received) }

  /// Adds what was dropped elsewhere.
  public static func += (sum: inout DropCounts, other: DropCounts) {
    for index in sum.transmitted.indices {
      sum.transmitted[index] &+= other.transmitted[index]
      sum.received[index] &+= other.received[index]
    }
  }
}
