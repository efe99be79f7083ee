internal import LibeventConcurrency

/// What a queue, or several together, did between two readings of its statistics, and how much that is in a second.
///
/// ```swift
/// let before = device.totalStatistics
/// …
/// print(device.totalStatistics.since(before))
/// // 81274 packets/s in (41.6 Mbit/s), 81274 packets/s out (41.6 Mbit/s); refused 12
/// ```
public struct QueueRates: Sendable, Hashable, CustomStringConvertible {
  /// The time between the two, by the clock of the queue's loop.
  public let interval: Duration
  /// What was done in it. What is no count but a level, such as ``QueueStatistics/sendersWaiting``, is as it was in the end.
  public let change: QueueStatistics

  /// One of the counts as so many a second: `rates.perSecond(\.packetsReceived)`; 0 when no time has passed.
  public func perSecond(_ count: KeyPath<QueueStatistics, UInt64>) -> Double {
    let seconds = interval / .seconds(1)
    return seconds > 0 ? Double(change[keyPath: count]) / seconds : 0
  }

  /// One line: packets and bits a second each way, and then whatever went wrong, as counts.
  public var description: String {
    func way(_ packets: KeyPath<QueueStatistics, UInt64>, _ bytes: KeyPath<QueueStatistics, UInt64>, _ name: String)
      -> String
    {
      "\(Int(perSecond(packets).rounded())) packets/s \(name) (\(Self.bits(perSecond(bytes) * 8)))"
    }
    let line = [way(\.packetsReceived, \.bytesReceived, "in"), way(\.packetsSubmitted, \.bytesSubmitted, "out")]
    return ([line.joined(separator: ", ")] + change.troubles).joined(separator: "; ")
  }

  /// `41.6 Mbit/s`.
  static func bits(_ rate: Double) -> String {
    var (value, unit) = (rate, "bit/s")
    for next in ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"] where value >= 1000 {
      value /= 1000
      unit = next
    }
    // One digit behind the point is enough of a rate.
    let tenths = Int((value * 10).rounded())
    return tenths % 10 == 0 ? "\(tenths / 10) \(unit)" : "\(tenths / 10).\(tenths % 10) \(unit)"
  }
}

extension QueueStatistics {
  /// What was done since an earlier reading of the same queues.
  public func since(_ earlier: QueueStatistics) -> QueueRates {
    var (change, earlier) = (self, earlier)
    change.withNumbers { numbers in earlier.withNumbers { numbers.subtract($0) } }
    // These are levels.
    change.sendersWaiting = sendersWaiting
    change.driver.quarantined = driver.quarantined
    change.residency = residency.since(earlier.residency)
    let interval = max(.zero, earlier.time.duration(to: time))
    return QueueRates(interval: interval, change: change)
  }
}

extension QueueStatistics: CustomStringConvertible {
  /// One line: packets and bytes each way, and then whatever went wrong.
  public var description: String {
    let line =
      "\(packetsReceived) packets in (\(bytesReceived) bytes), \(packetsSubmitted) out (\(bytesSubmitted) bytes)"
    return ([line] + troubles).joined(separator: "; ")
  }

  /// What a person would want to know of, each with its number.
  var troubles: [String] {
    let all: [(String, UInt64)] = [
      ("failed", packetsFailed), ("refused", packetsRefused), ("waiting to send", sendersWaiting),
      ("ring full", ringFull),
      ("pool empty", poolEmpty), ("reception starved", starved), ("copied to send", copiedToSend),
      ("copied to change", copiedToChange),
      ("too long", driver.receiveDropsLength), ("segmented", driver.receiveDropsSegmentation),
      ("bad checksum field", driver.receiveDropsChecksum), ("dropped at the end", droppedAtEnd),
      ("quarantined", quarantined + driver.quarantined), ("recovered", driver.recoveries), ("loop held", loopStalls),
    ]
    return all.compactMap { $0.1 > 0 ? "\($0.0) \($0.1)" : nil }
  }
}
