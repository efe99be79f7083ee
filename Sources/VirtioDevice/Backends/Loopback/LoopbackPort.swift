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
    let count = rings.popFrames(max: budget)
    // The receive ring is not looked at before there is a frame: the driver writes in its cache lines.
    if count > 0 { rings.popBuffers(max: count) }
    var index = 0
    while index < count {
      index += carryPlain(from: index, to: count, &rings)
      guard index < count else { break }
      let chain = unsafe rings.frames[index]
      if !carry(chain, &rings) {
        // It waits for buffers, and those behind it do.
        do throws(RingError) {
          try rings.transmit.rewind(count - index)
          return [.transmitBlocked, .needsReceiveBuffers]
        } catch {
          // A chain that broke a rule lies behind them and has been returned: they cannot be put back.
          rings.drop(chain, .noReceiveBuffer)
        }
      }
      index += 1
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// Carries frames of the burst as long as they are what nearly every frame is: one buffer that asks for no offload, and
  /// goes into one buffer. How many.
  @inline(__always)
  private func carryPlain(from first: Int, to end: Int, _ rings: inout EngineRings) -> Int {
    let frames = unsafe rings.frames + first
    let buffers = unsafe rings.hand + rings.handStart
    let limit = min(end - first, rings.handEnd - rings.handStart)
    let headerLength = VirtioNetHeader.size
    var count = 0
    var bytes = 0
    while count < limit {
      // Both indices are below what was taken.
      let frame = unsafe frames[count]
      let buffer = unsafe buffers[count]
      let source = unsafe frame.segments.pointee
      let room = unsafe buffer.segments.pointee
      guard frame.readableCount == 1, buffer.readableCount == 0, buffer.writableCount == 1,
        source.length > headerLength, room.length >= source.length,
        unsafe VirtioNetHeader(copying: source.base).isPlain
      else { break }
      unsafe VirtioNetHeader(numBuffers: 1).store(to: room.base)
      // Memory of the driver on both sides, checked to these lengths; it may overlap, which is the driver's affair.
      unsafe (room.base + headerLength).copyMemory(
        from: source.base + headerLength, byteCount: source.length - headerLength)
      bytes &+= source.length
      count &+= 1
    }
    guard count > 0 else { return 0 }
    rings.receive.pushUsed(count: count) {
      // The segments are the ring's private copy: the lengths are those that were copied.
      unsafe (buffers[$0].head, UInt32(truncatingIfNeeded: frames[$0].segments.pointee.length))
    }
    rings.transmit.pushUsed(count: count) { unsafe (frames[$0].head, 0) }
    rings.handStart += count
    rings.statistics.countLoop(frames: UInt64(count), bytes: UInt64(bytes - count * headerLength))
    return count
  }

  /// A frame in pieces, or with a header that asks for something, or for which there is no single buffer. False when it
  /// shall wait for buffers.
  private func carry(_ chain: DescriptorChain, _ rings: inout EngineRings) -> Bool {
    guard let header = VirtioNetHeader(copying: chain) else {
      rings.drop(chain, .shorterThanHeader)
      return true
    }
    let frameLength = chain.readableLength - VirtioNetHeader.size
    if let reason = rings.format.objection(to: header, frameLength: frameLength) {
      rings.drop(chain, reason)
      return true
    }
    guard let reason = rings.deliver(frameOf: chain) else {
      rings.release(chain, frameLength: frameLength)
      return true
    }
    if isLossless, reason == .noReceiveBuffer, !rings.receive.isBroken { return false }
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
