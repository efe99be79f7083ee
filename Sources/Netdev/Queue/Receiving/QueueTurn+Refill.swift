internal import CNetdevSystem
internal import LibeventConcurrency

/// Refilling: empty buffers for the device, from what is at hand here and from the pool.
extension QueueTurn {
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

  /// A device that is never behind keeps this turn from ending until its budget is used up, and the ring may be smaller than
  /// that: it would run dry, and the device drop what it could have delivered.
  func refillWithinTurn() {
    // What has been sent meanwhile is what there is to receive into.
    if unsafe local.pointee.count < driver.receiveRoom { takeReleased() }
    refill()
  }

  /// The ring is full: buffers beyond this queue's share are for others when those are short of them. What the next frames take
  /// stays, or each of them would come from the list that all queues share, and go back there.
  private func giveUpSurplus() {
    let share = max(refillBatch, pool.idleShare)
    guard unsafe local.pointee.count > share, pool.available < pool.configuration.reserve else { return }
    unsafe pool.spill(local, keeping: share)
  }

  /// The loop is about to sleep, perhaps for long: it keeps its share of free buffers from the others, and none that somebody waits
  /// for. True when there is reason to look again first.
  func giveUpIdle() -> Bool {
    // As it was when it slept last.
    guard !isFinished, unsafe local.pointee.count != Int(local.pointee.kept) else { return false }
    let share = pool.idleShare
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
    for position in 0..<count { unsafe frames.pointee.records[Int(slots[position])].unpoison() }
  }

  private func post(_ count: Int) {
    let first = unsafe local.pointee.count - count
    let slots = unsafe local.pointee.slots.advanced(by: first)
    let headroom = pool.configuration.headroom
    let (records, local) = unsafe (frames.pointee.records, local)
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
