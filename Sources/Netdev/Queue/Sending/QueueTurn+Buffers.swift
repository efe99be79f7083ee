internal import CNetdevSystem
internal import LibeventConcurrency

/// What the buffer timer has seen of the pool.
struct PoolProgress {
  /// The most buffers that were free while the first of the line waited.
  var free = 0
  /// Senders served in their turn, of all queues.
  var served: UInt64 = 0
}

/// Buffers of the pool for packets that lie elsewhere: who of this queue gets them, and how long they are waited for.
extension QueueTurn {
  /// Buffers for a frame of the program's own, from the pool or from what is at hand here and reception can spare.
  func takeChain(for count: Int, claimed: Int? = nil) -> UnsafeMutablePointer<SlotRecord>? {
    if let first = unsafe pool.takeChain(for: count, claimed: claimed) { return unsafe first }
    guard unsafe local.pointee.count > 0 else { return nil }
    // Into the pool, where the reserve tells what may be taken; the next refill fetches the rest.
    unsafe pool.spill(local, keeping: 0)
    return unsafe pool.takeChain(for: count, claimed: claimed)
  }

  /// Copies a packet into buffers taken for it.
  func adopt(_ packet: borrowing Packet, into first: UnsafeMutablePointer<SlotRecord>) -> Packet {
    statistics.copiedToSend &+= 1
    noteAdoption(of: packet)
    return unsafe pool.adopt(packet, into: first)
  }

  /// A sender whose packet needs buffers waits for them, and for room.
  func joinBufferLine(_ waiter: Waiter, hasRoom: Bool) {
    waiter.ticket = pool.queues.takeTicket()
    waiter.since = hasRoom ? loop.now : nil
    waiter.framesOut = pool.queues.framesOut()
    bufferLine.append(waiter)
    updateCredits()
    // The device is asked to say when there is room.
    if bufferLineLacksRoom { interestChanged() }
  }

  /// Gives the first of the line its buffers, for which there is room, if there are enough beyond what is left to those of other
  /// queues that came before.
  func serveBuffers(to first: Waiter) -> Bool {
    guard serve(first, leaving: pool.queues.claimed(before: first.ticket)) else { return false }
    pool.queues.noteServed()
    return true
  }

  private func serve(_ first: Waiter, leaving claimed: Int) -> Bool {
    guard let buffers = unsafe takeChain(for: first.need, claimed: claimed) else { return false }
    bufferLine.popFirst()
    lastBufferAt = loop.now
    restingLooks = 0
    promise(1)
    // A look of the timer compares with what is left.
    seen.free = pool.available
    first.settle(unsafe .buffers(buffers))
    return true
  }

  /// The pool knows from here on what the first of the line waits for: the next buffers given back anywhere wake this loop, and a
  /// timer sees to it that nobody waits for what cannot come.
  ///
  /// `Models/Sources/Netdev/PoolModels.swift` has a copy of the order of these steps, and of `grant`.
  func claimBuffers(for first: Waiter) {
    if first.since == nil { first.since = loop.now }
    hasClaim = true
    unsafe pool.queues.claim(
      pool.buffersNeeded(for: first.need), ticket: first.ticket, isResting: restingLooks > 0, for: local)
    guard !bufferTimerRuns else { return }
    bufferTimerRuns = true
    seen = progress
    bufferTimer?.schedule(after: NetworkQueue.bufferPatience)
  }

  /// Nobody of this queue waits for buffers any more.
  func endClaim() {
    guard hasClaim else { return }
    hasClaim = false
    unsafe pool.queues.unclaim(local)
  }

  /// The ring waits for no buffers any more, and nobody for room that the pool bounds.
  func endWish() {
    guard hasWish else { return }
    hasWish = false
    unsafe pool.queues.withdraw(local)
  }

  private var progress: PoolProgress { PoolProgress(free: pool.available, served: pool.queues.served) }

  /// How many patiences a claim rests.
  private static let restingTime = 16

  /// Whoever has waited as long as one may, with none of its frames out and nothing moving in front of it, is told.
  func bufferTimerFired() {
    updateCredits()
    guard hasClaim, let first = bufferLine.first else { return bufferTimerRuns = false }
    let now = loop.now
    let isOut = pool.queues.isAnyOut(first.framesOut)
    let hasMoved = noteProgress()
    // Those behind it have waited for these, too. How long a device takes is its affair. And others have passed a claim that
    // rested: it stands for as long as one may wait before anybody is told.
    if isOut || hasMoved || restingLooks > 0 { lastBufferAt = now }
    noteRest(isOut && !hasMoved)
    let patience = NetworkQueue.bufferPatience.nanosecondsRoundedUp
    func isOver(_ waiter: Waiter) -> Bool {
      guard let since = waiter.since else { return false }
      return now >= max(since, lastBufferAt) &+ patience
    }
    while let waiter = bufferLine.first, isOver(waiter) {
      // Nobody is told that there are none while there are: those for whom they are left have not come for them. It was not his
      // turn, so nobody else's patience is renewed by it.
      if ringRoom > 0, serve(waiter, leaving: 0) { break }
      bufferLine.popFirst()
      waiter.settle(.failed(noBuffers(for: waiter.need)))
    }
    // The queue's claim is that of its first.
    updateCredits()
    guard hasClaim, let waiter = bufferLine.first else { return bufferTimerRuns = false }
    let waited = now &- max(waiter.since ?? now, lastBufferAt)
    bufferTimer?.schedule(after: .nanoseconds(Int64(clamping: patience &- min(waited, patience))))
  }

  /// True when the pool got on since the last look: a buffer came, or a sender was served, who was in front: those behind leave
  /// this one's claim alone.
  private func noteProgress() -> Bool {
    var present = progress
    let hasMoved = present.free > seen.free || present.served != seen.served
    // What those in front have taken is there to come anew.
    if present.served == seen.served { present.free = max(present.free, seen.free) }
    seen = present
    return hasMoved
  }

  /// While nothing comes but from a device that takes its time, the first of the line keeps nothing from those behind it; now and
  /// then its claim stands again, for it may want more than is ever free at once otherwise.
  private func noteRest(_ isIdle: Bool) {
    if !isIdle { return restingLooks = 0 }
    restingLooks = restingLooks == 0 ? Self.restingTime : restingLooks - 1
  }

  private func noBuffers(for count: Int) -> NetworkDeviceError {
    NetworkDeviceError(
      .outOfMemory, "send",
      offered:
        "no buffers for \(count) bytes came free in \(NetworkQueue.bufferPatience): packets that the program keeps, or receive rings, hold them all",
      advice: "let packets go, or open the device with `keptPackets`")
  }
}
