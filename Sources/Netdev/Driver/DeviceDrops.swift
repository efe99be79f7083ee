/// Frames that the device at the other end of a queue pair did not carry on, as far as it tells, by the name of the reason.
///
/// A device releases the buffer of a frame that it drops as it does that of any other: what ``QueueStatistics`` counts as
/// released has either been carried on or is counted here, and never both.
public struct DeviceDrops: Sendable, Hashable {
  /// Frames of the program.
  public var transmitted: [String: UInt64] = [:]
  /// Frames for the program.
  public var received: [String: UInt64] = [:]

  /// None.
  public init() {}

  /// Frames of the program, for any reason.
  public var totalTransmitted: UInt64 { transmitted.values.reduce(0, &+) }
  /// Frames for the program, for any reason.
  public var totalReceived: UInt64 { received.values.reduce(0, &+) }

  /// Adds what was dropped elsewhere.
  public static func += (sum: inout DeviceDrops, other: DeviceDrops) {
    sum.transmitted.merge(other.transmitted) { $0 &+ $1 }
    sum.received.merge(other.received) { $0 &+ $1 }
  }
}

extension DeviceDrops: CustomStringConvertible {
  /// One line for a person: `3 of the program (linkDown 3), 952 for the program (noReceiveBuffer 952)`.
  public var description: String {
    let ways = [(totalTransmitted, "of", transmitted), (totalReceived, "for", received)].filter { $0.0 > 0 }
    guard !ways.isEmpty else { return "none" }
    return ways.map { "\($0.0) \($0.1) the program (\(Self.list($0.2)))" }.joined(separator: ", ")
  }

  /// The reasons, each with its number.
  static func list(_ reasons: [String: UInt64]) -> String {
    reasons.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
  }
}

extension NetworkDevice {
  /// What the device has dropped so far, a queue pair each in the order of ``queues``; empty where it does not tell. From any
  /// thread; no queue notices. Still there after the device is closed.
  public var deviceDrops: [DeviceDrops] { Array(life.driver.deviceDrops.prefix(queues.count)) }
}
