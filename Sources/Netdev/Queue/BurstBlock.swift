internal import LibeventConcurrency

/// Room for one burst of frames: 64 entries that belong to whoever holds the block.
@safe @frozen @usableFromInline
struct BurstBlock {
  @usableFromInline static var capacity: Int { 64 }
  @usableFromInline var count: Int
  @usableFromInline let entries: UnsafeMutablePointer<FrameEntry>
  /// When the frames were taken from the device, by the loop's clock; 0 for frames that were not received.
  var time: UInt64
  /// The next one, while this one is idle.
  var next: UnsafeMutablePointer<BurstBlock>?

  /// Room for `capacity` frames: 64 unless it is to hold more than a burst.
  static func make(capacity: Int = Self.capacity) -> UnsafeMutablePointer<BurstBlock> {
    let block = UnsafeMutablePointer<BurstBlock>.allocate(capacity: 1)
    let entries = UnsafeMutablePointer<FrameEntry>.allocate(capacity: capacity)
    unsafe entries.initialize(repeating: FrameEntry(rawValue: 0), count: capacity)
    unsafe block.initialize(to: BurstBlock(count: 0, entries: entries))
    return unsafe block
  }

  @usableFromInline init(count: Int, entries: UnsafeMutablePointer<FrameEntry>) {
    self.count = count
    unsafe self.entries = entries
    time = 0
    unsafe next = nil
  }

  static func free(_ block: UnsafeMutablePointer<BurstBlock>) {
    unsafe block.pointee.entries.deallocate()
    unsafe block.deallocate()
  }
}

// MARK: - Blocks that come back

extension NetworkQueue {
  /// A burst went with what was left in it.
  nonisolated func takeBack(_ block: UnsafeMutablePointer<BurstBlock>) {
    if isHere {
      unsafe frames.pointee.withTurn { unsafe $0.dropFrames(of: block) }
      unsafe recycle(block)
    } else {
      for position in unsafe 0..<block.pointee.count { dropBurstFrame(unsafe block.pointee.entries[position]) }
      unsafe block.pointee.count = 0
      // Dropped elsewhere: the block itself belongs to the queue's loop.
      let address = UInt(bitPattern: block)
      loop.execute { self.recycle(address: address) }
    }
  }

  /// On the loop.
  private nonisolated func recycle(address: UInt) {
    guard let block = unsafe UnsafeMutablePointer<BurstBlock>(bitPattern: address) else { return }
    unsafe recycle(block)
  }

  /// On the loop: the block serves the next burst.
  nonisolated func recycle(_ block: UnsafeMutablePointer<BurstBlock>) {
    let isDone = unsafe frames.pointee.withTurn { turn in
      unsafe turn.recycle(block)
      return turn.isDone
    }
    if isDone { releaseSelf() }
  }

  /// From any thread: one frame of a burst is dropped.
  nonisolated func dropBurstFrame(_ entry: FrameEntry) {
    if isHere {
      unsafe frames.pointee.withTurn { $0.releaseBuffer(entry.slot) }
    } else {
      // The packet's end is the frame's end, wherever it happens.
      _ = packet(entry)
    }
  }
}

extension QueueTurn {
  /// The queue has ended, and no program holds a burst of it.
  var isDone: Bool { isFinished && blocksOut == 0 }

  /// An empty block; they are made once and come back.
  func takeBlock() -> UnsafeMutablePointer<BurstBlock> {
    guard let block = idleBlock else { return unsafe BurstBlock.make() }
    idleBlock = unsafe block.pointee.next
    unsafe block.pointee.count = 0
    unsafe block.pointee.time = 0
    return unsafe block
  }

  /// Drops the frames of a block.
  func dropFrames(of block: UnsafeMutablePointer<BurstBlock>) {
    for position in unsafe 0..<block.pointee.count { releaseBuffer(unsafe block.pointee.entries[position].slot) }
    unsafe block.pointee.count = 0
  }

  /// An empty block is back.
  func recycle(_ block: UnsafeMutablePointer<BurstBlock>) {
    blocksOut -= 1
    unsafe block.pointee.next = idleBlock
    unsafe idleBlock = block
  }
}
