internal import CNetdevSystem
internal import Virtio

/// One pair of the loopback: each frame that the driver transmits goes back to it on its receive ring.
///
/// The frame is copied once, from the buffers it was sent in to the buffers it is received in; nothing looks at it. The
/// header is written anew. This is the path that the framework is measured on.
final class LoopbackPort: BackendPort {
  private let isLossless: Bool

  init(isLossless: Bool) { self.isLossless = isLossless }

  func start(_ bell: ServiceBell) {}
  func setEnabled(_ enabled: Bool) {}
  func close() {}

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    // The receive ring is not looked at before there is a frame: the driver writes in its cache lines.
    guard rings.beginTransmit() else { return [] }
    rings.beginReceive()
    if rings.isFiltering { return carryAll(&rings, budget: budget) }
    var budget = budget
    while true {
      budget -= relay(&rings, upTo: budget)
      // Nearly always that was all.
      guard rings.hasMoreFrames else { return [] }
      guard let chain = rings.nextFrame(&budget) else { return rings.hasMoreFrames ? .moreWork : [] }
      if !carry(chain, &rings) { return [.transmitBlocked, .needsReceiveBuffers] }
    }
  }

  /// Nearly every frame of a driver is one buffer that asks for no offload, and goes into one buffer: carries those that
  /// come first, and says how many there were.
  @inline(__always)
  private func relay<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, upTo limit: Int) -> Int {
    // Buffers in hand were taken first and are used first.
    guard rings.handStart == rings.handEnd else { return 0 }
    #if Testing
    if unsafe netdev_fault_is_planted("carried-twice") { return 0 }
    #endif
    let headerLength = VirtioNetHeader.size
    var bytes = 0
    let count = rings.transmit.relay(to: &rings.receive, max: limit, in: rings.memory) { source, room in
      let length = source.length
      guard length > headerLength, room.length >= length,
        unsafe VirtioNetHeader.isPlain(copied: source.base.loadUnaligned(as: UInt16.self))
      else { return nil }
      unsafe VirtioNetHeader(numBuffers: 1).store(to: room.base)
      // Memory of the driver on both sides, checked to these lengths; it may overlap, which is the driver's affair.
      unsafe (room.base + headerLength).copyFrame(from: source.base + headerLength, byteCount: length &- headerLength)
      bytes &+= length
      return UInt32(truncatingIfNeeded: length)
    }
    rings.statistics.countLoop(frames: UInt64(count), bytes: UInt64(bytes &- count &* headerLength))
    return count
  }

  /// Each frame is looked at, by itself.
  @inline(never)
  private func carryAll<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    var budget = budget
    while let chain = rings.nextFrame(&budget) {
      if !carry(chain, &rings) { return [.transmitBlocked, .needsReceiveBuffers] }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// A frame in pieces, or with a header to be judged, or for which there is no single buffer. False when it has been left
  /// on the ring to wait for buffers.
  @inline(never)
  private func carry<Ring: DeviceRing & ~Copyable>(_ chain: DescriptorChain, _ rings: inout EngineRings<Ring>) -> Bool {
    guard let reason = rings.deliver(frameOf: chain) else {
      #if Testing
      if unsafe netdev_fault_is_planted("carried-twice") { _ = rings.deliver(frameOf: chain) }
      #endif
      rings.release(chain, frameLength: chain.readableLength - VirtioNetHeader.size)
      return true
    }
    if isLossless, reason == .noReceiveBuffer, rings.mayHopeForBuffers, rings.putBack(chain) { return false }
    rings.drop(chain, reason)
    return true
  }
}

extension QueuePairStatistics {
  /// Frames that were taken from one ring and put into one buffer each of the other.
  @inline(__always)
  mutating func countLoop(frames: UInt64, bytes: UInt64) {
    transmittedFrames &+= frames
    transmittedBytes &+= bytes
    receivedFrames &+= frames
    receivedBytes &+= bytes
    receivedBuffers &+= frames
  }
}
