internal import CNetdevSystem

// Bursts that a program makes: frames of its own without an object a frame.
extension NetworkQueue {
  /// Takes free buffers of the queue's pool as a burst of frames to be written and submitted.
  ///
  /// ```swift
  /// var burst = try queue.makeBurst(count: 32, length: 64)
  /// burst.forEach { frame in write(into: &frame) }
  /// try await queue.submit(burst)
  /// ```
  ///
  /// The frames hold what was in the buffers before, perhaps other frames: write all of them before they are sent. What the
  /// pool keeps for reception (`reserve`) stays there.
  ///
  /// - Parameter count: frames wanted, up to 64; the burst has fewer when the pool has no more.
  /// - Parameter length: bytes of each.
  /// - Throws: `frameTooLong` when a frame does not fit a buffer or the device; `outOfMemory` when there is no free buffer:
  ///   some are when frames in flight have been released (`releases` tells). `closed` or the cause when the queue has ended.
  public func makeBurst(count: Int, length: Int) throws(NetworkDeviceError) -> PacketBurst {
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, "makeBurst") }
    if let end = core.end { throw end }
    let longest = min(pool.configuration.slotSize - pool.configuration.headroom, maximumFrameLength)
    guard (0...longest).contains(length) else {
      throw NetworkDeviceError(
        .frameTooLong, "makeBurst", offered: "\(length) bytes", advice: "a frame in one buffer has up to \(longest)")
    }
    let taken = core.takeFreeSlots(min(max(count, 1), BurstBlock.capacity))
    guard taken > 0 else {
      throw NetworkDeviceError(
        .outOfMemory, "makeBurst", offered: "the pool has no free buffer",
        advice: "make the pool larger, or wait for releases")
    }
    return unsafe PacketBurst(queue: self, block: core.makeBlock(ofFreeSlots: taken, length: length))
  }
}

extension QueueCore {
  /// Sees to it that `wanted` free slots are at hand, as far as the pool has them beyond its reserve; says how many there are
  /// for a program.
  fileprivate func takeFreeSlots(_ wanted: Int) -> Int {
    // What has just been sent is what is in the cache: it comes before what lies in the pool.
    if freeForProgram < wanted { takeReleased() }
    if unsafe local.pointee.count < wanted {
      unsafe pool.replenish(local, wanted: wanted - local.pointee.count, leaving: pool.configuration.reserve)
    }
    if freeForProgram <= 0 { pumpReleases() }
    return max(0, min(wanted, freeForProgram))
  }

  /// Slots at hand are for the program only as far as the pool keeps its reserve without them.
  private var freeForProgram: Int {
    unsafe local.pointee.count + min(0, pool.available - pool.configuration.reserve)
  }

  /// The last `count` slots at hand as frames of `length` bytes.
  fileprivate func makeBlock(ofFreeSlots count: Int, length: Int) -> UnsafeMutablePointer<BurstBlock> {
    let block = unsafe takeBlock()
    blocksOut += 1
    let first = unsafe local.pointee.count - count
    unsafe local.pointee.count = first
    let slots = unsafe local.pointee.slots.advanced(by: first)
    let entries = unsafe block.pointee.entries
    let headroom = pool.configuration.headroom
    for position in 0..<count {
      let slot = unsafe slots[position]
      let record = unsafe state.pointee.records.advanced(by: Int(slot))
      unsafe record.pointee.unpoison()
      unsafe record.pointee.home = local
      unsafe record.pointee.setFrame(offset: headroom, length: length)
      unsafe entries[position] = TransmitEntry(slot: slot)
    }
    unsafe block.pointee.count = count
    return unsafe block
  }
}
