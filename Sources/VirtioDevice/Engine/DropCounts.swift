internal import Synchronization

/// Frames dropped, by direction and reason.
public struct DropCounts: Sendable {
  private var transmitted = InlineArray<16, UInt64>(repeating: 0)
  private var received = InlineArray<16, UInt64>(repeating: 0)

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

/// What the device's side of a queue pair has dropped since there is a device, over all engines that the pair has had.
///
/// An engine adds to it at the end of a turn that dropped something, so that whoever asks never meets the path of a frame
/// that is carried.
public final class DropLedger: Sendable {
  private let counts = Mutex(DropCounts())

  /// Nothing yet.
  public init() {}

  /// The counts so far. From any thread.
  public var snapshot: DropCounts { counts.withLock { $0 } }

  /// Adds what a turn has dropped.
  ///
  /// - Returns: the reasons that there were none of before.
  func add(_ turn: DropCounts) -> [(FrameDirection, DropReason)] {
    counts.withLock { counts in
      var firsts: [(FrameDirection, DropReason)] = []
      for direction in [FrameDirection.transmitted, .received] {
        for reason in DropReason.allCases where turn[direction, reason] > 0 && counts[direction, reason] == 0 {
          firsts.append((direction, reason))
        }
      }
      counts += turn
      return firsts
    }
  }
}
