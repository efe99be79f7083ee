internal import CNetdevSystem
internal import LibeventConcurrency

/// Reception: frames are taken from the driver when somebody wants them, so a slow consumer leaves them on the ring and
/// the device drops, as with a NIC.
extension QueueCore {
  /// Fills the ready block from the driver; false when nothing came.
  @discardableResult func takeReceived() -> Bool {
    guard isOpen else { return false }
    let block = unsafe state.pointee.ready
    do {
      var entries = unsafe MutableSpan(_unsafeStart: block.pointee.entries, count: BurstBlock.capacity)
      let count = try driver.takeReceived(into: &entries)
      unsafe state.pointee.readyHead = 0
      unsafe block.pointee.count = count
      guard count > 0 else { return false }
      // Once for all of them.
      unsafe block.pointee.time = loop.now
      noteReceived(count)
      if driver.receiveRoom >= urgentRoom { refillWithinTurn() }
      return true
    } catch {
      unsafe state.pointee.readyHead = 0
      unsafe block.pointee.count = 0
      breakQueue(error)
      return false
    }
  }

  /// A device that is never behind keeps this turn from ending until its budget is used up, and the ring may be smaller than
  /// that: it would run dry, and the device drop what it could have delivered.
  private func refillWithinTurn() {
    // What has been sent meanwhile is what there is to receive into.
    if unsafe local.pointee.count < driver.receiveRoom { takeReleased() }
    refill()
  }

  private func noteReceived(_ count: Int) {
    noteActivity()
    noteFound()
    receivedThisTurn += count
    statistics.packetsReceived &+= UInt64(count)
  }

  var readyCount: Int { unsafe state.pointee.ready.pointee.count - state.pointee.readyHead }

  /// The turn's budget of received frames is used up.
  var turnIsSpent: Bool { receivedThisTurn >= QueueState.turnBudget }

  /// Looks once more before a consumer suspends: publishes and rings, lets devices of this loop take their turn, and takes
  /// what has come. Within the turn's budget, so that a body that never suspends still ends its turn.
  func pump() -> Bool {
    guard isOpen, consumers.isEmpty, !turnIsSpent else { return false }
    if takeReceived() { return true }
    guard unsafe active || state.pointee.pending.pointee.count > 0 else { return false }
    flush()
    takeReleased()
    refill()
    driver.ring()
    loop.serveDevices()
    return takeReceived()
  }

  /// Looks for released buffers before a task suspends for them: publishes and rings, lets devices of this loop take their
  /// turn, and takes what has been released. Within the turn's budget.
  ///
  /// Whoever does not wait calls it, too, and may do so under a lock of his own.
  func pumpReleases() {
    guard isOpen, !turnIsSpent else { return }
    #if Testing
    netdev_fault_forbid_places(true)
    defer { netdev_fault_forbid_places(false) }
    #endif
    takeReleased()
    flush()
    refill()
    driver.ring()
    loop.serveDevices()
    takeReleased()
  }

  /// Gives what there is to those who wait, first come first served: a frame to whoever asked for one, all that is left
  /// to whoever asked for a burst.
  func serveConsumers() {
    if readyCount == 0 { takeReceived() }
    while readyCount > 0, let consumer = consumers.popFirst() {
      switch consumer.wish {
      case .burst: unsafe consumer.settle(.block(unsafe takeReadyBlock()))
      case .ahead:
        // A consumer outside gets a burst for its hop, but no more than its share while others wait.
        let share = max(1, readyCount / (consumers.count + 1))
        unsafe consumer.settle(.block(unsafe takeReadyBlock(atMost: share)))
      default: consumer.settle(.frame(takeReady()))
      }
    }
  }

  /// The next ready frame; there is one.
  func takeReady() -> TransmitEntry {
    let entry = unsafe state.pointee.ready.pointee.entries[state.pointee.readyHead]
    unsafe state.pointee.readyHead += 1
    return entry
  }

  /// The ready frames, or the first of them, as a block of their own.
  func takeReadyBlock(atMost limit: Int = BurstBlock.capacity) -> UnsafeMutablePointer<BurstBlock> {
    let block = unsafe state.pointee.ready
    let head = unsafe state.pointee.readyHead
    if readyCount > limit {
      let part = unsafe takeBlock()
      unsafe part.pointee.entries.update(from: block.pointee.entries.advanced(by: head), count: limit)
      unsafe part.pointee.count = limit
      unsafe part.pointee.time = block.pointee.time
      unsafe state.pointee.readyHead = head + limit
      blocksOut += 1
      return unsafe part
    }
    if head > 0 {
      let left = unsafe block.pointee.count - head
      unsafe block.pointee.entries.update(from: block.pointee.entries.advanced(by: head), count: left)
      unsafe block.pointee.count = left
    }
    unsafe state.pointee.ready = takeBlock()
    unsafe state.pointee.readyHead = 0
    blocksOut += 1
    return unsafe block
  }

  /// An empty block; they are made once and come back.
  func takeBlock() -> UnsafeMutablePointer<BurstBlock> {
    guard let block = idleBlock else { return unsafe BurstBlock.make() }
    idleBlock = unsafe block.pointee.next
    unsafe block.pointee.count = 0
    unsafe block.pointee.time = 0
    return unsafe block
  }

  // `Models/Sources/Netdev/PoolModels.swift` has copies of what `refill`, `giveUpIdle` and `replenish` do with the pool's queues: a
  // change of that order is made there too.

  /// Gives the device empty buffers for what it consumed; wakes nobody, rings nothing.
  func refill() {
    // Somebody waits for buffers: what this queue has at hand is shared out anew, by the pool's rules.
    if pool.queues.isShort, unsafe local.pointee.count > 0 { unsafe pool.spill(local, keeping: 0) }
    guard isOpen else { return }
    // In fair-sized batches: the ring is large, and a few free places are no reason to touch it.
    let room = driver.receiveRoom
    guard room >= refillBatch else {
      endWish()
      return giveUpSurplus()
    }
    if unsafe local.pointee.count < room, !replenish(room) { return }
    endWish()
    post(min(room, unsafe local.pointee.count))
  }

  /// The ring is full: buffers beyond the next batch are for others when those are short of them.
  private func giveUpSurplus() {
    guard unsafe local.pointee.count > refillBatch, pool.available < pool.configuration.reserve else { return }
    unsafe pool.spill(local, keeping: refillBatch)
  }

  /// The loop is about to sleep, perhaps for long: it keeps few free buffers from the others, and none that somebody waits for.
  /// True when there is reason to look again first.
  func giveUpIdle() -> Bool {
    // As it was when it slept last.
    guard !isFinished, unsafe local.pointee.count != Int(local.pointee.kept) else { return false }
    let share = min(refillBatch, pool.idleShare)
    if unsafe local.pointee.count > share { unsafe pool.spill(local, keeping: share) }
    return unsafe pool.queues.keep(local.pointee.count, in: local)
  }

  /// Gets buffers for `room` places from the pool, as far as there are any for this queue; true when there is one at hand. Up to
  /// its share of the reserve a queue takes what there is; beyond that it leaves the whole reserve to others, and, once the ring
  /// takes any frame, what senders wait for.
  private func replenish(_ room: Int) -> Bool {
    let atHand = unsafe max(0, receiveCapacity - room) + local.pointee.count
    let missing = pool.receiveShare - atHand
    let needed = frameBuffers - atHand
    takeFromPool(room, missing: missing, needed: needed)
    if unsafe local.pointee.count > 0 { return true }
    // A ring with its share in it, and enough for any frame, brings the next turn by itself: the next frame does.
    guard missing > 0 || needed > 0 else {
      endWish()
      return false
    }
    // No buffer that this queue may take: whoever gives that one back wakes this loop. Looks again after asking.
    noteStarving()
    #if Testing
    if unsafe netdev_fault_is_planted("starving-unregistered") { return false }
    #endif
    unsafe pool.queues.wish(missing > 0 ? 0 : pool.configuration.reserve, for: local)
    hasWish = true
    takeFromPool(room, missing: missing, needed: needed)
    return unsafe local.pointee.count > 0
  }

  private func takeFromPool(_ room: Int, missing: Int, needed: Int) {
    let reserve = pool.configuration.reserve
    unsafe pool.replenish(local, wanted: min(missing, room - local.pointee.count), leaving: 0)
    if needed > 0 {
      unsafe pool.replenish(local, wanted: min(needed, room) - local.pointee.count, leaving: reserve)
    }
    unsafe pool.replenish(local, wanted: room - local.pointee.count, leaving: pool.keptFromPrograms)
  }

  /// In a build with an address sanitizer the program may touch these buffers again once they carry a frame.
  @inline(never) private func unpoison(_ slots: UnsafeMutablePointer<UInt32>, count: Int) {
    for position in 0..<count { unsafe state.pointee.records[Int(slots[position])].unpoison() }
  }

  private func post(_ count: Int) {
    let first = unsafe local.pointee.count - count
    let slots = unsafe local.pointee.slots.advanced(by: first)
    let headroom = pool.configuration.headroom
    let (records, local) = unsafe (state.pointee.records, local)
    for position in 0..<count {
      let record = unsafe records.advanced(by: Int(slots[position]))
      unsafe record.pointee.home = local
      unsafe record.pointee.setFrame(offset: headroom, length: 0)
    }
    if netdev_poisoning { unsafe unpoison(slots, count: count) }
    do {
      let posted = try driver.post(unsafe Span(_unsafeStart: slots, count: count))
      guard posted > 0 else { return }
      // The driver takes from the front; what it left stays on the list.
      unsafe slots.update(from: slots.advanced(by: posted), count: count - posted)
      unsafe local.pointee.count -= posted
      noteActivity()
    } catch {
      breakQueue(error)
    }
  }
}
