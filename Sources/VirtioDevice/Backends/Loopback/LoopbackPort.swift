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

  func serve(_ rings: inout EngineRings, budget: Int) -> ServeResult {
    let available = rings.beginTransmit()
    // Not before there is a frame: the driver's index shares a cache line with what it writes.
    guard available > 0 else { return [] }
    _ = rings.beginReceive()
    let limit = min(available, budget)
    let headerLength = VirtioNetHeader.size
    var frames: UInt64 = 0
    var bytes = 0
    var result: ServeResult = available > limit ? .moreWork : []
    for _ in 0..<limit {
      guard let chain = rings.nextTransmit() else {
        if rings.transmit.seen > 0 { result.insert(.moreWork) }
        break
      }
      // Nearly every frame of a driver is one buffer that asks for no offload, and goes into one buffer.
      let length = unsafe chain.segments.pointee.length
      if chain.readableCount == 1, length > headerLength, rings.handStart == rings.handEnd {
        let source = unsafe chain.segments.pointee.base
        if unsafe VirtioNetHeader(copying: source).isPlain, let buffer = rings.nextReceive() {
          let room = unsafe buffer.segments.pointee
          if buffer.readableCount == 0, buffer.writableCount == 1, room.length >= length {
            unsafe VirtioNetHeader(numBuffers: 1).store(to: room.base)
            // Memory of the driver on both sides, checked to these lengths; it may overlap, which is the driver's affair.
            unsafe (room.base + headerLength).copyMemory(from: source + headerLength, byteCount: length - headerLength)
            rings.receive.pushUsed(head: buffer.head, written: UInt32(truncatingIfNeeded: length))
            rings.transmit.pushUsed(head: chain.head, written: 0)
            frames &+= 1
            bytes &+= length - headerLength
            continue
          }
          rings.takeInHand(buffer)
        }
      }
      if !carry(chain, &rings) {
        result = [.transmitBlocked, .needsReceiveBuffers]
        break
      }
    }
    rings.statistics.countLoop(frames: frames, bytes: UInt64(bytes))
    return result
  }

  /// A frame in pieces, or with a header that asks for something, or for which there is no single buffer. False when it
  /// has been left on the ring to wait for buffers.
  private func carry(_ chain: DescriptorChain, _ rings: inout EngineRings) -> Bool {
    guard let header = VirtioNetHeader(copying: chain) else {
      rings.dropTransmit(chain, .shorterThanHeader)
      return true
    }
    let frameLength = chain.readableLength - VirtioNetHeader.size
    if let reason = rings.format.objection(to: header, frameLength: frameLength) {
      rings.dropTransmit(chain, reason)
      return true
    }
    guard let reason = rings.deliver(frameOf: chain) else {
      rings.transmit.pushUsed(head: chain.head, written: 0)
      rings.statistics.transmittedFrames &+= 1
      rings.statistics.transmittedBytes &+= UInt64(frameLength)
      return true
    }
    if isLossless, reason == .noReceiveBuffer, !rings.receive.isBroken {
      // Taken last and not returned: it can be put back.
      do throws(RingError) {
        try rings.transmit.rewind(1)
        return false
      } catch {}
    }
    rings.dropTransmit(chain, reason)
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
