internal import CRingTwin
internal import Virtio

/// The same loop in C.
public final class TwinLoop: RingLoop {
  private let twin: OpaquePointer
  private let transmits: Bool

  /// A loop over fresh rings.
  public init(_ setting: RingLoopSetting, _ memory: RingLoopMemory) {
    transmits = setting.transmits
    var made = twin_setting(
      packed: setting.format == .packed, in_order: setting.inOrder, size: UInt32(RingLoopMemory.size),
      transmit: memory.transmit, receive: memory.receive, address: 0, length: UInt64(RingLoopMemory.bufferBytes),
      host: memory.buffers.assumingMemoryBound(to: UInt8.self))
    twin = twin_make(&made)
  }

  deinit { twin_free(twin) }

  /// So far.
  public var counts: RingLoopCounts {
    let counts = twin_counts(twin)
    return RingLoopCounts(carried: counts.carried, sum: counts.sum, notified: counts.notified)
  }

  /// One burst.
  public func turn(burst: Int) throws -> Int {
    Int(transmits ? twin_transmit(twin, UInt32(burst)) : twin_loop(twin, UInt32(burst)))
  }

  /// Bursts until so many packets are round.
  public func run(burst: Int, packets: UInt64) throws { twin_run(twin, transmits, UInt32(burst), packets) }
}
