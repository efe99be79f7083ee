public import CNetdevSystem
internal import LibeventConcurrency

/// The frames of a queue: those at hand, those accepted and those in flight, and how many more may come. Behind one pointer: what the
/// inlined fast paths read and write.
///
/// Touched on the queue's loop only, constants included: whatever else needs those has them from the actor. Stored class properties
/// would cost an exclusivity check and a reload at each use.
@safe @frozen @usableFromInline
struct QueueFrames {
  /// Records of the queue's pool, and their extent in bytes: a packet whose record lies there can be sent as it is.
  @usableFromInline let records: UnsafeMutablePointer<SlotRecord>
  @usableFromInline let recordBytes: UInt
  /// Longest frame the device takes.
  @usableFromInline let maximumFrame: UInt32

  /// Received frames at hand, from `readyHead` on. Nobody waits while there are some: a consumer that waits has found none,
  /// and what comes then goes to those who wait before anything is left here.
  @usableFromInline var ready: UnsafeMutablePointer<BurstBlock>
  @usableFromInline var readyHead: Int

  /// Frames accepted and not yet published.
  @usableFromInline var pending: UnsafeMutablePointer<BurstBlock>
  /// Frames that may be accepted now: room in the ring, within the turn's budget; 0 while senders wait, so that who comes
  /// later waits behind them.
  @usableFromInline var credits: Int
  /// Frames published and not yet released.
  @usableFromInline var inFlight: Int
  #if Testing
  /// Frames accepted so far, for `QueueTurn.accountForFrames`.
  @usableFromInline var entered: UInt64 = 0
  #endif

  /// Sends whose frames have failed, and whose tasks have not been told yet.
  @usableFromInline var failedSends: Int

  /// What the queue does with them; unretained, it owns this.
  @usableFromInline let turn: Unmanaged<QueueTurn>

  /// Frames that may go each way in one turn of the loop: some tens of microseconds of work.
  @usableFromInline static var turnBudget: Int { 512 }

  /// - Parameter room: frames that the driver takes.
  init(_ turn: QueueTurn, pool: PacketPool, maximumFrame: Int, room: Int) {
    unsafe records = pool.records
    recordBytes = UInt(pool.configuration.slots * MemoryLayout<SlotRecord>.stride)
    self.maximumFrame = UInt32(clamping: maximumFrame)
    unsafe ready = BurstBlock.make()
    readyHead = 0
    // What may be accepted is counted in frames. When frames take several descriptors each, up to a whole ring of them
    // waits here, and then a burst.
    unsafe pending = BurstBlock.make(capacity: room + BurstBlock.capacity)
    credits = room
    inFlight = 0
    failedSends = 0
    unsafe self.turn = .passUnretained(turn)
  }

  /// Calls the turn without a retain: the actor owns it, and the caller is on the loop and holds the actor.
  @inline(__always) func withTurn<Result>(_ body: (QueueTurn) -> Result) -> Result {
    unsafe turn._withUnsafeGuaranteedRef { body($0) }
  }

  /// True when the record is one of this queue's pool.
  @inlinable func owns(_ record: UnsafeMutablePointer<SlotRecord>) -> Bool {
    unsafe UInt(bitPattern: record) &- UInt(bitPattern: records) < recordBytes
  }
}

// What the inlined paths do on the loop. These take the pointer: with the actor for `self`, a call would retain it.
extension QueueFrames {
  /// True when the caller is on the loop of this identity.
  @inlinable static func isHere(_ loop: UInt) -> Bool { netdev_current_loop_identity() == loop }

  /// A frame that is at hand.
  @inlinable static func takeReady(_ frames: UnsafeMutablePointer<QueueFrames>) -> Packet? {
    let block = unsafe frames.pointee.ready
    let head = unsafe frames.pointee.readyHead
    guard unsafe head < block.pointee.count else { return nil }
    unsafe frames.pointee.readyHead = head &+ 1
    return unsafe Packet(owning: frames.pointee.records.advanced(by: Int(block.pointee.entries[head].slot)))
  }

  /// Nothing at hand: looks once more, without suspending.
  @usableFromInline @inline(never) static func pumpAndTake(_ frames: UnsafeMutablePointer<QueueFrames>) -> Packet? {
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    guard unsafe frames.pointee.withTurn({ $0.pump() }) else { return nil }
    return unsafe takeReady(frames)
  }

  /// With room: takes a packet that lies in one buffer; its reference is the driver's now.
  @inlinable static func acceptSingle(
    _ packet: consuming Packet, cookie: UInt32 = 0, to frames: UnsafeMutablePointer<QueueFrames>
  ) {
    // Somebody else holds the buffer, perhaps another device: its net header must not be written into it.
    let isPlain = isKnownUniquelyReferenced(&packet.object)
    let slot = unsafe packet.record.pointee.slot
    _ = unsafe Unmanaged.passRetained(packet.object)
    if isPlain {
      unsafe append(FrameEntry(slot: slot, cookie: cookie), to: frames)
    } else {
      unsafe appendHeld(slot, cookie: cookie, to: frames)
    }
  }

  /// With room: takes a packet; its reference is the driver's now.
  static func accept(_ packet: consuming Packet, cookie: UInt32 = 0, to frames: UnsafeMutablePointer<QueueFrames>) {
    if unsafe packet.record.pointee.segments == 1 {
      return unsafe acceptSingle(consume packet, cookie: cookie, to: frames)
    }
    let slot = unsafe packet.record.pointee.slot
    _ = unsafe Unmanaged.passRetained(packet.object)
    unsafe appendHeld(slot, cookie: cookie, to: frames)
  }

  /// With room: one accepted frame joins those to be published.
  @inlinable static func append(_ entry: FrameEntry, to frames: UnsafeMutablePointer<QueueFrames>) {
    let pending = unsafe frames.pointee.pending
    let count = unsafe pending.pointee.count
    unsafe pending.pointee.entries[count] = entry
    unsafe pending.pointee.count = count &+ 1
    unsafe frames.pointee.credits &-= 1
    #if Testing
    unsafe frames.pointee.entered &+= 1
    #endif
    if count &+ 1 >= BurstBlock.capacity { unsafe flush(frames) }
  }

  /// As `append`, for a frame whose header must lie elsewhere: it is in several buffers, or somebody else holds the one.
  /// Out of line: the other way is the common one.
  @usableFromInline @inline(never) static func appendHeld(
    _ slot: UInt32, cookie: UInt32, to frames: UnsafeMutablePointer<QueueFrames>
  ) {
    unsafe append(FrameEntry(slot: slot, cookie: cookie, isPlain: false), to: frames)
  }

  /// Publishes what has been accepted.
  @usableFromInline @inline(never) static func flush(_ frames: UnsafeMutablePointer<QueueFrames>) {
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    unsafe frames.pointee.withTurn { $0.flush() }
  }
}

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
