public import CNetdevSystem

/// The hot state of a queue pair, behind one pointer: what the inlined fast paths read and write.
///
/// Touched on the queue's loop only, constants included: whatever else needs those has them from the actor. Stored class properties would cost an exclusivity check and a reload at each use.
@safe @frozen @usableFromInline
struct QueueState {
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

  /// The on-loop logic, once the queue is prepared; unretained, the actor owns it.
  @usableFromInline var core: Unmanaged<QueueCore>?

  /// Frames that may go each way in one turn of the loop: some tens of microseconds of work.
  @usableFromInline static var turnBudget: Int { 512 }

  init(pool: PacketPool, maximumFrame: Int) {
    unsafe records = pool.records
    recordBytes = UInt(pool.configuration.slots * MemoryLayout<SlotRecord>.stride)
    self.maximumFrame = UInt32(clamping: maximumFrame)
    unsafe ready = BurstBlock.make()
    readyHead = 0
    unsafe pending = BurstBlock.make()
    credits = 0
    inFlight = 0
    unsafe core = nil
  }

  /// Calls the core without a retain; nil before the queue is prepared. The actor owns the core, and the caller is on the
  /// loop and holds the actor.
  @inline(__always) func withCore<Result>(_ body: (QueueCore) -> Result) -> Result? {
    unsafe core?._withUnsafeGuaranteedRef { body($0) }
  }

  /// True when the record is one of this queue's pool.
  @inlinable func owns(_ record: UnsafeMutablePointer<SlotRecord>) -> Bool {
    unsafe UInt(bitPattern: record) &- UInt(bitPattern: records) < recordBytes
  }
}

// What the inlined paths do on the loop. These take the pointer: with the actor for `self`, a call would retain it.
extension QueueState {
  /// True when the caller is on the loop of this identity.
  @inlinable static func isHere(_ loop: UInt) -> Bool { netdev_current_loop_identity() == loop }

  /// A frame that is at hand.
  @inlinable static func takeReady(_ state: UnsafeMutablePointer<QueueState>) -> Packet? {
    let block = unsafe state.pointee.ready
    let head = unsafe state.pointee.readyHead
    guard unsafe head < block.pointee.count else { return nil }
    unsafe state.pointee.readyHead = head &+ 1
    return unsafe Packet(owning: state.pointee.records.advanced(by: Int(block.pointee.entries[head].slot)))
  }

  /// Nothing at hand: looks once more, without suspending.
  @usableFromInline @inline(never) static func pumpAndTake(_ state: UnsafeMutablePointer<QueueState>) -> Packet? {
    guard unsafe state.pointee.withCore({ $0.pump() }) == true else { return nil }
    return unsafe takeReady(state)
  }

  /// With room: one accepted frame joins those to be published.
  @inlinable static func append(_ entry: TransmitEntry, to state: UnsafeMutablePointer<QueueState>) {
    let pending = unsafe state.pointee.pending
    let count = unsafe pending.pointee.count
    unsafe pending.pointee.entries[count] = entry
    unsafe pending.pointee.count = count &+ 1
    unsafe state.pointee.credits &-= 1
    if count &+ 1 >= BurstBlock.capacity { unsafe flush(state) }
  }

  /// As `append`, for a frame whose header must lie elsewhere: it is in several buffers, or somebody else holds the one.
  /// Out of line: the other way is the common one.
  @usableFromInline @inline(never) static func appendHeld(
    _ slot: UInt32, cookie: UInt32, to state: UnsafeMutablePointer<QueueState>
  ) {
    unsafe append(TransmitEntry(slot: slot, cookie: cookie, isPlain: false), to: state)
  }

  /// Publishes what has been accepted.
  @usableFromInline @inline(never) static func flush(_ state: UnsafeMutablePointer<QueueState>) {
    unsafe state.pointee.withCore { $0.flush() }
  }
}
