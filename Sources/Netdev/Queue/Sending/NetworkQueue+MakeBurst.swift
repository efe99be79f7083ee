internal import CNetdevSystem
internal import PacketFormats

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
  /// pool keeps for reception (`reserve`), and what senders of any of its queues wait for, stays there.
  ///
  /// - Parameter count: frames wanted, 64 at most; the burst has fewer when the pool has no more of them to spare, and none when none
  ///   are wanted.
  /// - Parameter length: bytes of each; frames longer than a buffer lie in several. Longer than ``maximumFrameLength``, by four bytes
  ///   for each of up to two VLAN tags, they must be written with such tags: without them they fail when they are submitted.
  /// - Throws: `frameTooLong` when the device takes no such frame; `outOfMemory` when there is no buffer to spare:
  ///   some are when frames in flight have been released (`releases` tells). `closed` or the cause when the queue has ended.
  public func makeBurst(count: Int, length: Int) throws(NetworkDeviceError) -> PacketBurst {
    if let end = turn.end { throw end }
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    guard length >= 0, length <= FrameLimit(untagged: maximumFrameLength).longest else {
      throw .tooLong(length, maximumFrameLength, "makeBurst")
    }
    let buffers = pool.buffersNeeded(for: length)
    let wanted = min(max(count, 0), BurstBlock.capacity, LocalSlots.capacity / buffers) * buffers
    let taken = turn.takeFreeSlots(wanted) / buffers
    guard taken > 0 || count <= 0 else {
      throw NetworkDeviceError(
        .outOfMemory, "makeBurst", offered: "the pool has no buffer to spare",
        advice: "wait for releases, or open the device with `keptPackets`")
    }
    return unsafe PacketBurst(queue: self, block: turn.makeBlock(ofFrames: taken, buffers: buffers, length: length))
  }
}

extension QueueTurn {
  /// Sees to it that `wanted` free slots are at hand, as far as the pool has them beyond its reserve and what senders wait for;
  /// says how many there are for a program.
  fileprivate func takeFreeSlots(_ wanted: Int) -> Int {
    // What has just been sent is what is in the cache: it comes before what lies in the pool.
    if freeForProgram < wanted { takeReleased() }
    if unsafe local.pointee.count < wanted {
      unsafe pool.replenish(local, wanted: wanted - local.pointee.count, leaving: pool.keptFromPrograms)
    }
    if freeForProgram <= 0 { pumpReleases() }
    return max(0, min(wanted, freeForProgram))
  }

  /// Slots at hand that are the program's to take.
  private var freeForProgram: Int { unsafe pool.spareSlots(local) }

  /// The last slots at hand as `count` frames of `length` bytes, each in so many buffers.
  fileprivate func makeBlock(
    ofFrames count: Int, buffers: Int, length: Int
  ) -> UnsafeMutablePointer<BurstBlock> {
    let block = unsafe takeBlock()
    blocksOut += 1
    if buffers > 1 {
      for position in 0..<count {
        unsafe block.pointee.entries[position] = FrameEntry(slot: chain(of: buffers, length), isPlain: false)
      }
      unsafe block.pointee.count = count
      return unsafe block
    }
    let first = unsafe local.pointee.count - count
    unsafe local.pointee.count = first
    let slots = unsafe local.pointee.slots.advanced(by: first)
    let entries = unsafe block.pointee.entries
    let headroom = pool.configuration.headroom
    // Whether a longer one has the tags for it is to be looked at when it is sent.
    let isPlain = unsafe length <= Int(frames.pointee.maximumFrame)
    for position in 0..<count {
      let slot = unsafe slots[position]
      let record = unsafe frames.pointee.records.advanced(by: Int(slot))
      unsafe record.pointee.unpoison()
      unsafe record.pointee.home = local
      unsafe record.pointee.setFrame(offset: headroom, length: length)
      unsafe entries[position] = FrameEntry(slot: slot, isPlain: isPlain)
    }
    unsafe block.pointee.count = count
    return unsafe block
  }

  /// The last `buffers` slots at hand as one frame; the first of them.
  private func chain(of buffers: Int, _ length: Int) -> UInt32 {
    var chain = ChainUnderConstruction()
    for _ in 0..<buffers {
      unsafe local.pointee.count -= 1
      let record = unsafe frames.pointee.records.advanced(by: Int(local.pointee.slots[local.pointee.count]))
      unsafe record.pointee.unpoison()
      unsafe record.pointee.home = local
      unsafe chain.append(record, in: pool, of: length)
    }
    return unsafe chain.first?.pointee.slot ?? 0
  }
}
