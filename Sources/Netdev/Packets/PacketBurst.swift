/// Up to 64 received frames as one value that can only be moved: the fast path, without an object a frame.
///
/// ```swift
/// while var burst = await queue.receiveBurst() {
///   burst.filter { frame in answer(&frame) }
///   try await queue.submit(burst)
/// }
/// ```
///
/// Frames that are still in a burst when it goes are dropped: their buffers return to the pool.
@safe public struct PacketBurst: ~Copyable, @unchecked Sendable {
  // Proof of Sendable: who holds a burst owns its frames and its block alone; `takeBack` works on any thread.
  // Unowned, because the queue stays alive until every block is back (`NetworkQueue.releaseSelfIfDone`).
  @usableFromInline unowned(unsafe) let queue: NetworkQueue
  @usableFromInline let block: UnsafeMutablePointer<BurstBlock>

  /// The queue's turn counts the block as out and keeps the queue alive until it is back.
  init(queue: NetworkQueue, block: UnsafeMutablePointer<BurstBlock>) {
    unsafe self.queue = queue
    unsafe self.block = block
  }

  deinit {
    unsafe queue.takeBack(block)
  }

  /// Frames in the burst.
  public var count: Int { unsafe block.pointee.count }

  /// Hands over block and duty.
  consuming func takeBlock() -> UnsafeMutablePointer<BurstBlock> {
    let block = unsafe self.block
    discard self
    return unsafe block
  }

  private func record(_ position: Int) -> UnsafeMutablePointer<SlotRecord> {
    unsafe queue.records.advanced(by: Int(block.pointee.entries[position].slot))
  }

  /// Who waits for the release of these frames.
  mutating func mark(cookie: UInt32) {
    for position in 0..<count {
      let entry = unsafe block.pointee.entries[position]
      unsafe block.pointee.entries[position] = FrameEntry(slot: entry.slot, cookie: cookie, isPlain: entry.isPlain)
    }
  }

  /// Reads frame `position`, 0 to `count - 1`; nil, without a call, where there is none.
  @discardableResult public borrowing func withBytes<Result: ~Copyable, Failure: Error>(
    at position: Int, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result? {
    guard position >= 0, position < count else { return nil }
    let record = unsafe record(position)
    let start = unsafe SlotRecord.contiguousBytes(record)
    return try body(unsafe RawSpan(_unsafeStart: start, byteCount: Int(record.pointee.frameLength)))
  }

  /// Changes each frame, in order: in place where it lies in one buffer, else in one piece that is then written back.
  @inline(__always) public mutating func forEach<Failure: Error>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Void
  ) throws(Failure) {
    for position in 0..<count {
      let record = unsafe record(position)
      guard unsafe record.pointee.segments == 1 else {
        try unsafe SlotRecord.change(record, body)
        continue
      }
      var span = unsafe MutableRawSpan(_unsafeStart: record.pointee.start, byteCount: Int(record.pointee.length))
      try body(&span)
    }
  }

  /// Keeps the frames for which `isKept` says so, which may change them as in `forEach`; the others are dropped.
  @inline(__always) public mutating func filter(_ isKept: (inout MutableRawSpan) -> Bool) {
    var kept = 0
    for position in 0..<count {
      let entry = unsafe block.pointee.entries[position]
      let record = unsafe record(position)
      let keeps: Bool
      if unsafe record.pointee.segments == 1 {
        var span = unsafe MutableRawSpan(_unsafeStart: record.pointee.start, byteCount: Int(record.pointee.length))
        keeps = isKept(&span)
      } else {
        keeps = unsafe SlotRecord.change(record, isKept)
      }
      if keeps {
        unsafe block.pointee.entries[kept] = entry
        kept += 1
      } else {
        unsafe queue.dropBurstFrame(entry)
      }
    }
    unsafe block.pointee.count = kept
  }

  /// Takes the last frame out as a packet; nil when the burst is empty.
  public mutating func popLast() -> Packet? {
    guard count > 0 else { return nil }
    unsafe block.pointee.count -= 1
    return unsafe queue.packet(block.pointee.entries[block.pointee.count])
  }
}

extension PacketBurst {
  /// Takes out the frame at `position` as a packet and goes on to the next; nil behind the last, and the burst is empty then.
  mutating func takeFirst(_ position: inout Int) -> Packet? {
    guard position < count else {
      unsafe block.pointee.count = 0
      return nil
    }
    // Nothing of the queue but this, so that it need not be held.
    let record = unsafe queue.records.advanced(by: Int(block.pointee.entries[position].slot))
    position += 1
    return unsafe Packet(owning: record)
  }

  /// Takes all frames out, one by one. The first failure ends it, unless it is for a frame's length: that is nothing to the
  /// others, and thrown at the end.
  mutating func takeAll(
    isolation: isolated (any Actor)? = #isolation,
    _ body: (consuming Packet) async throws(NetworkDeviceError) -> Void
  ) async throws(NetworkDeviceError) {
    var tooLong: NetworkDeviceError?
    var position = 0
    while let packet = takeFirst(&position) {
      do throws(NetworkDeviceError) {
        try await body(packet)
      } catch {
        guard error.code == .frameTooLong else {
          // These are taken; the burst goes with what is left in it.
          dropFirst(position)
          throw error
        }
        tooLong = error
      }
    }
    if let tooLong { throw tooLong }
  }

  /// Forgets the first frames, which have been taken out.
  mutating func dropFirst(_ taken: Int) {
    let left = count - taken
    unsafe block.pointee.entries.update(from: block.pointee.entries.advanced(by: taken), count: left)
    unsafe block.pointee.count = left
  }
}
