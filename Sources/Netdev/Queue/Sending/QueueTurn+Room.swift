internal import CNetdevSystem
internal import LibeventConcurrency

// Room in the transmit ring. What may be accepted without a wait is in the credits; what those have been promised who waited, in
// `granted`, until they come for it.

// MARK: - Credits

extension QueueTurn {
  /// Whoever runs now accepts so many more frames at once: their room is theirs.
  func lend(_ frames: Int) { unsafe self.frames.pointee.credits += frames }

  /// So many frames have been published at once; each of those accepted one by one takes its credit itself (`QueueFrames.append`).
  func spend(_ frames: Int) { unsafe self.frames.pointee.credits -= frames }

  /// Nobody accepts anything without a wait, until the room is counted anew.
  func withdrawCredits() { unsafe frames.pointee.credits = 0 }

  /// A sender that waited goes on, with room for so many frames.
  func promise(_ frames: Int) { granted += frames }

  /// A sender has come for what it was promised: lent to it from here on.
  ///
  /// - Throws: the end, when it came in between: nobody may find the room later.
  func redeem(_ frames: Int, for operation: String) throws(NetworkDeviceError) {
    granted -= frames
    if let end { throw end.met(by: operation) }
    lend(frames)
  }
}

// MARK: - Who gets it, and when

extension QueueTurn {
  /// Frames that the ring has room for, beside those that have been promised it.
  @inline(__always) var ringRoom: Int {
    unsafe transmitCapacity - frames.pointee.inFlight - frames.pointee.pending.pointee.count - granted
  }

  /// After releases or a refused publication, and when buffers have come: room goes to those who wait, then to whoever comes.
  func updateCredits() {
    guard isOpen else { return }
    // What waits for publication fills its block: nothing can join it until the ring takes some.
    if unsafe frames.pointee.pending.pointee.count >= BurstBlock.capacity {
      withdrawCredits()
      bufferLineLacksRoom = !bufferLine.isEmpty
      return endClaim()
    }
    var room = roomByRing
    // A body that never suspends must still let its turn end. Frames that waited when the turn began and then failed for
    // their length count backwards.
    let budget = QueueFrames.turnBudget - Int(truncatingIfNeeded: accepted &- acceptedBefore)
    let isSpent = budget < room
    room = min(room, budget)
    if !backlog.isEmpty { room = acceptBacklog(room) }
    if isCarrying { room = acceptCarried(room) }
    // To publish what had waited may have shown that the queue is broken.
    guard isOpen else { return }
    // Asked first: to look at who waits costs a reference.
    if !senders.isEmpty || !bufferLine.isEmpty || hasClaim || bufferLineLacksRoom {
      room = grant(room, isSpent: isSpent)
    }
    unsafe frames.pointee.credits = lineIsEmpty ? max(0, room) : 0
    if isRefusing != !lineIsEmpty {
      isRefusing = !lineIsEmpty
      mailbox.setOpen(!isRefusing)
    }
  }

  /// Gives room to those who wait, in order; whoever wants buffers with it, and cannot have them now, lets others pass. Returns
  /// the room that is left.
  ///
  /// - Parameter isSpent: it is this turn's budget that ends the room, not the ring.
  private func grant(_ room: Int, isSpent: Bool) -> Int {
    var room = room
    var asked: UInt64?
    while true {
      let lacksBuffers = grantAsFarAsPossible(&room)
      bufferLineLacksRoom = !lacksBuffers && !bufferLine.isEmpty
      guard lacksBuffers, let first = bufferLine.first else {
        // Who waits for room claims nothing, and who waits for the next turn may claim it there.
        if bufferLine.isEmpty || !isSpent { endClaim() }
        return room
      }
      // Looks again after asking.
      guard first.ticket != asked else { return room }
      asked = first.ticket
      claimBuffers(for: first)
    }
  }

  /// True when the first of the buffer line has room and no buffers.
  private func grantAsFarAsPossible(_ room: inout Int) -> Bool {
    var lacksBuffers = false
    while true {
      let sender = senders.first
      if !lacksBuffers, room > 0, let first = bufferLine.first, first.ticket < sender?.ticket ?? .max {
        if serveBuffers(to: first) { room -= 1 } else { lacksBuffers = true }
        continue
      }
      guard let sender, room >= sender.need else { return lacksBuffers }
      senders.popFirst()
      room -= sender.need
      #if Testing
      if sender.need > 1, unsafe netdev_fault_is_planted("promised-twice") { granted -= 1 }
      #endif
      promise(sender.need)
      sender.settle(.granted)
    }
  }

  /// As much room as ring and pool have.
  @inline(__always) var roomByRing: Int { lowWater > 0 ? boundedByPool(ringRoom) : ringRoom }

  /// As much of `room` as leaves reception its buffers: a frame that waits in a ring is a buffer that receives nothing.
  private func boundedByPool(_ room: Int) -> Int {
    let waiting = unsafe frames.pointee.pending.pointee.count + granted
    let spare = pool.available - lowWater - waiting
    if spare >= room { return room }
    let held = unsafe frames.pointee.inFlight + waiting
    let bound = max(spare, pool.transmitShare - held)
    // An idle ring takes what the first sender has, be it a whole burst: nothing would make room for it later.
    return min(room, held == 0 ? max(bound, senders.first?.need ?? 1) : bound)
  }

  /// Before the loop sleeps: when it is the pool alone that keeps the first of those who wait from the ring, the buffers that
  /// come free wake this loop, for the device may release nothing. True when there is reason to look again first.
  func wishForRoom() -> Bool {
    guard lowWater > 0, isOpen, !lineIsEmpty else { return false }
    #if Testing
    if unsafe netdev_fault_is_planted("unwished-room") { return false }
    #endif
    guard unsafe frames.pointee.pending.pointee.count < BurstBlock.capacity else { return false }
    let need = firstNeed
    let room = ringRoom
    guard room >= need, boundedByPool(room) < need else { return false }
    // What is at hand here counts among what the pool has.
    unsafe pool.spill(local, keeping: 0)
    let waiting = unsafe frames.pointee.pending.pointee.count + granted
    unsafe pool.queues.wish(lowWater + waiting + need - 1, for: local)
    hasWish = true
    // Looks again after asking.
    return boundedByPool(room) >= need
  }

  /// Frames that the first of those who wait for room wants it for.
  private var firstNeed: Int {
    guard backlog.isEmpty, !isCarrying, let sender = senders.first else { return 1 }
    if bufferLineLacksRoom, let first = bufferLine.first, first.ticket < sender.ticket { return 1 }
    return sender.need
  }

  /// Nobody waits for room: neither packets from outside, nor those of other pairs, nor senders.
  var lineIsEmpty: Bool { senders.isEmpty && backlog.isEmpty && !isCarrying && !bufferLineLacksRoom }
}
