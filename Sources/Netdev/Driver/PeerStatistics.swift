/// What the device at the other end of a queue pair has done, by its own count: beside ``QueueStatistics``, which is what the queue
/// has seen of it.
///
/// The two ways are named as the program sees them: what it transmits, and what it receives.
public struct PeerStatistics: Sendable, Hashable {
  /// Frames of the program that the device has carried on.
  public var transmittedFrames: UInt64 = 0
  /// Their bytes, without net headers.
  public var transmittedBytes: UInt64 = 0
  /// Frames for the program that the device has put into receive buffers.
  public var receivedFrames: UInt64 = 0
  /// Their bytes, without net headers.
  public var receivedBytes: UInt64 = 0
  /// Frames that it has not carried on, both ways and by reason.
  public var drops = DeviceDrops()
  /// Doorbells that have reached it.
  public var kicks: UInt64 = 0
  /// Interrupts that it has raised.
  public var interrupts: UInt64 = 0
  /// Bursts for which the driver wanted no interrupt.
  public var interruptsSuppressed: UInt64 = 0

  /// All zero.
  public init() {}

  /// Adds what another pair's side has done.
  public static func += (sum: inout PeerStatistics, other: PeerStatistics) {
    sum.transmittedFrames &+= other.transmittedFrames
    sum.transmittedBytes &+= other.transmittedBytes
    sum.receivedFrames &+= other.receivedFrames
    sum.receivedBytes &+= other.receivedBytes
    sum.drops += other.drops
    sum.kicks &+= other.kicks
    sum.interrupts &+= other.interrupts
    sum.interruptsSuppressed &+= other.interruptsSuppressed
  }
}

extension NetworkDevice {
  /// What the device's own side has done so far, a queue pair each in the order of ``queues``; empty where it does not tell, as that
  /// of a switch or of `packet:`. From any thread; no queue notices. Still there after the device is closed.
  ///
  /// A frame is counted before its buffer is released, or before it can be received; a drop a little later, and doorbells and interrupts
  /// with the next frame, or at the end.
  public var peerStatistics: [PeerStatistics] { Array(life.driver.peerStatistics.prefix(queues.count)) }
}

extension PeerStatistics: CustomStringConvertible {
  /// One line for a person.
  public var description: String {
    var parts = [
      "\(transmittedFrames) packets carried on, \(receivedFrames) delivered", "\(kicks) kicks",
      "\(interrupts) interrupts",
    ]
    for (way, reasons) in [("to be sent", drops.transmitted), ("to be received", drops.received)]
    where !reasons.isEmpty {
      parts.append("dropped \(way): \(DeviceDrops.list(reasons))")
    }
    return parts.joined(separator: "; ")
  }
}
