/// What the device side of one queue pair has done since it started.
public struct QueuePairStatistics: Sendable {
  /// Frames taken from the driver's transmit ring and carried on.
  public var transmittedFrames: UInt64 = 0
  /// Bytes of those frames, without virtio-net headers.
  public var transmittedBytes: UInt64 = 0
  /// Frames put on the driver's receive ring.
  public var receivedFrames: UInt64 = 0
  /// Bytes of those frames, without virtio-net headers.
  public var receivedBytes: UInt64 = 0
  /// Receive buffers used for them: more than frames where frames span several (VIRTIO_NET_F_MRG_RXBUF).
  public var receivedBuffers: UInt64 = 0
  /// Frames not carried on, by reason, both ways.
  public var drops = DropCounts()
  /// Kicks that came in, both rings: "available buffer notifications".
  public var kicks: UInt64 = 0
  /// Interrupts raised, both rings.
  public var calls: UInt64 = 0
  /// Bursts of used buffers for which the driver wanted no interrupt.
  public var suppressedCalls: UInt64 = 0
  /// Turns in which the back-end was asked to serve.
  public var services: UInt64 = 0

  /// All zero.
  public init() {}

  /// Adds what another engine has done.
  static func += (sum: inout QueuePairStatistics, other: QueuePairStatistics) {
    sum.transmittedFrames &+= other.transmittedFrames
    sum.transmittedBytes &+= other.transmittedBytes
    sum.receivedFrames &+= other.receivedFrames
    sum.receivedBytes &+= other.receivedBytes
    sum.receivedBuffers &+= other.receivedBuffers
    sum.drops += other.drops
    sum.kicks &+= other.kicks
    sum.calls &+= other.calls
    sum.suppressedCalls &+= other.suppressedCalls
    sum.services &+= other.services
  }
}
