internal import LibeventConcurrency

/// Reception: frames are taken from the driver when somebody wants them, so a slow consumer leaves them on the ring and
/// the device drops, as with a NIC.
extension QueueTurn {
  /// Fills the ready block from the driver; false when nothing came.
  @discardableResult func takeReceived() -> Bool {
    guard isOpen else { return false }
    let block = unsafe frames.pointee.ready
    do {
      var entries = unsafe MutableSpan(_unsafeStart: block.pointee.entries, count: BurstBlock.capacity)
      let count = try driver.takeReceived(into: &entries)
      unsafe frames.pointee.readyHead = 0
      unsafe block.pointee.count = count
      guard count > 0 else { return false }
      // Once for all of them.
      unsafe block.pointee.time = loop.now
      noteReceived(count)
      if driver.receiveRoom >= urgentRoom { refillWithinTurn() }
      return true
    } catch {
      unsafe frames.pointee.readyHead = 0
      unsafe block.pointee.count = 0
      breakQueue(error)
      return false
    }
  }

  private func noteReceived(_ count: Int) {
    noteActivity()
    noteFound()
    receivedThisTurn += count
    statistics.packetsReceived &+= UInt64(count)
  }

  var readyCount: Int { unsafe frames.pointee.ready.pointee.count - frames.pointee.readyHead }

  /// The turn's budget of received frames is used up.
  var turnIsSpent: Bool { receivedThisTurn >= QueueFrames.turnBudget }

  /// Looks once more before a consumer suspends: publishes and rings, lets devices of this loop take their turn, and takes
  /// what has come. Within the turn's budget, so that a body that never suspends still ends its turn.
  func pump() -> Bool {
    guard isOpen, consumers.isEmpty, !turnIsSpent else { return false }
    if takeReceived() { return true }
    guard unsafe active || frames.pointee.pending.pointee.count > 0 else { return false }
    flush()
    takeReleased()
    refill()
    driver.ring()
    loop.serveDevices()
    return takeReceived()
  }

  /// Looks for released buffers before a task suspends for them: publishes and rings, lets devices of this loop take their
  /// turn, and takes what has been released. Within the turn's budget.
  func pumpReleases() {
    guard isOpen, !turnIsSpent else { return }
    takeReleased()
    flush()
    refill()
    driver.ring()
    loop.serveDevices()
    takeReleased()
  }

  /// The same for a task that has just had a frame accepted and waits for its release. So many times a turn and no more: then it
  /// waits, and the turn ends. What has come in meanwhile is for those who wait for it, who then go on before the next look.
  func lookForRelease() {
    guard isOpen, looks < Self.looksATurn else { return }
    looks &+= 1
    flush()
    refill()
    driver.ring()
    loop.serveDevices()
    takeReleased()
    if !consumers.isEmpty { serveConsumers() }
  }

  private static let looksATurn = 64

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
  func takeReady() -> FrameEntry {
    let entry = unsafe frames.pointee.ready.pointee.entries[frames.pointee.readyHead]
    unsafe frames.pointee.readyHead += 1
    return entry
  }

  /// The ready frames, or the first of them, as a block of their own.
  func takeReadyBlock(atMost limit: Int = BurstBlock.capacity) -> UnsafeMutablePointer<BurstBlock> {
    let block = unsafe frames.pointee.ready
    let head = unsafe frames.pointee.readyHead
    if readyCount > limit {
      let part = unsafe takeBlock()
      unsafe part.pointee.entries.update(from: block.pointee.entries.advanced(by: head), count: limit)
      unsafe part.pointee.count = limit
      unsafe part.pointee.time = block.pointee.time
      unsafe frames.pointee.readyHead = head + limit
      blocksOut += 1
      return unsafe part
    }
    if head > 0 {
      let left = unsafe block.pointee.count - head
      unsafe block.pointee.entries.update(from: block.pointee.entries.advanced(by: head), count: left)
      unsafe block.pointee.count = left
    }
    unsafe frames.pointee.ready = takeBlock()
    unsafe frames.pointee.readyHead = 0
    blocksOut += 1
    return unsafe block
  }

}
