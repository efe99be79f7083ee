internal import CNetdevSystem
internal import LibeventConcurrency
internal import Synchronization

// What queues wait for: a ring for buffers at all, a queue's first sender for as many as its packet takes.
//
// Senders are served in the order in which they began to wait, whatever queue of the pool they wait at: each draws a ticket, and
// the first of a queue's line claims its buffers with it. A claim keeps these from whoever comes later: from senders with
// later tickets, from new packets, and from rings that have what they need. A claim for more than is free makes those behind it
// wait until there are so many. To that there is a limit: a claim that no buffer came to for as long as a sender's patience
// rests, and those behind it go on (`QueueTurn.bufferTimerFired`). A claim goes with its sender, whether he was served, gave up,
// or his queue ended, and those behind it are looked at anew.

extension PoolQueues {
  /// Buffers that a queue's first sender waits for.
  struct Claim: Sendable {
    /// Of the queue.
    let entry: Int
    let ticket: UInt64
    let buffers: Int
    /// It keeps nothing from others for now.
    var isResting = false
    /// The queue has been woken for it and has not been there yet.
    var isCalled = false
  }

  // MARK: Rings

  /// On the owner's loop: it wants to be woken, once, by the buffer that makes more than `level` of them free in the shared
  /// list; a later wish is joined to the earlier. Whoever wishes looks once more afterwards.
  func wish(_ level: Int, for list: UnsafeMutablePointer<LocalSlots>) {
    unsafe ask(for: list) { state, index in
      let known = state.entries[index].owner?.level ?? .max
      state.entries[index].owner?.level = min(level, known)
    }
  }

  /// On the owner's loop: its ring wants nothing any more.
  func withdraw(_ list: UnsafeMutablePointer<LocalSlots>) {
    state.withLock { state in
      guard let index = unsafe state.index(of: list) else { return }
      state.entries[index].owner?.level = nil
      wake(&state)
    }
  }

  // MARK: Senders

  /// The next turn.
  func takeTicket() -> UInt64 { tickets.add(1, ordering: .relaxed).oldValue }

  /// Buffers that senders wait for, all together.
  var claimed: Int { claimedCount.load(ordering: .relaxed) }

  /// On the owner's loop: its first sender waits for so many buffers. It takes the place of the queue's earlier claim, and stands
  /// until it is given up. Whoever claims looks once more afterwards.
  func claim(_ buffers: Int, ticket: UInt64, isResting: Bool, for list: UnsafeMutablePointer<LocalSlots>) {
    unsafe ask(for: list) { state, index in
      state.claims.removeAll { $0.entry == index }
      let place = state.claims.firstIndex { $0.ticket > ticket } ?? state.claims.endIndex
      state.claims.insert(Claim(entry: index, ticket: ticket, buffers: buffers, isResting: isResting), at: place)
    }
  }

  /// On the owner's loop: none of its senders waits for buffers.
  func unclaim(_ list: UnsafeMutablePointer<LocalSlots>) {
    state.withLock { state in
      guard let index = unsafe state.index(of: list) else { return }
      state.claims.removeAll { $0.entry == index }
      wake(&state)
    }
  }

  /// Buffers that are left to senders whose turn comes before.
  func claimed(before ticket: UInt64) -> Int {
    guard claimed > 0 else { return 0 }
    #if Testing
    if unsafe netdev_fault_is_planted("no-turns") { return 0 }
    #endif
    return state.withLock { state in
      state.claims.reduce(0) { $1.ticket < ticket && !$1.isResting ? $0 + $1.buffers : $0 }
    }
  }

  /// Senders that waited and got their buffers, of all queues.
  var served: UInt64 { servedCount.load(ordering: .relaxed) }

  /// A sender that has waited gets his buffers.
  func noteServed() { servedCount.add(1, ordering: .relaxed) }

  // MARK: Waking

  /// From any thread: a slot comes into the pool's shared list, and those are woken for whom there are enough now.
  func giveBack(_ slot: UInt32) {
    shared.push(slot)
    netdev_full_fence()
    guard shared.count > wakeLevel.load(ordering: .relaxed) else { return }
    state.withLock { wake(&$0) }
  }

  /// On the owner's loop, which is about to sleep: it keeps so many free slots. True when they are wanted elsewhere already.
  func keep(_ count: Int, in list: UnsafeMutablePointer<LocalSlots>) -> Bool {
    guard unsafe list.pointee.kept != UInt(count) else { return false }
    unsafe netdev_store_release_word(&list.pointee.kept, UInt(count))
    guard count > 0 else { return false }
    netdev_full_fence()
    return isShort
  }

  private func ask(
    for list: UnsafeMutablePointer<LocalSlots>, _ body: (inout State, Int) -> Void
  ) {
    state.withLock { state in
      guard let index = unsafe state.index(of: list) else { return }
      let wasShort = isShort
      body(&state, index)
      wake(&state)
      // From here on what comes free is to be seen; what has been kept is called for once.
      guard !wasShort else { return }
      for entry in state.entries where unsafe entry.list != list {
        if unsafe netdev_load_relaxed_word(&entry.list.pointee.kept) > 0 { entry.owner?.loop.wake() }
      }
    }
  }

  /// Notes what there is to wait for, and then wakes those for whom there is enough, each once: whoever gives a buffer back
  /// meanwhile sees the one, or is seen here.
  func wake(_ state: inout State) {
    let isAnybody = !state.claims.isEmpty || state.entries.contains { $0.owner?.level != nil }
    waiting.store(isAnybody ? 1 : 0, ordering: .relaxed)
    claimedCount.store(state.claims.reduce(0) { $1.isResting ? $0 : $0 + $1.buffers }, ordering: .relaxed)
    wakeLevel.store(least(state), ordering: .relaxed)
    netdev_full_fence()
    let free = shared.count
    guard free > wakeLevel.load(ordering: .relaxed) else { return }
    for index in state.entries.indices {
      guard let owner = state.entries[index].owner, let level = owner.level, level < free else { continue }
      state.entries[index].owner?.level = nil
      owner.loop.wake()
    }
    forEachClaim(state.claims) { place, level in
      guard level < free, !state.claims[place].isCalled else { return }
      state.claims[place].isCalled = true
      state.entries[state.claims[place].entry].owner?.loop.wake()
    }
    wakeLevel.store(least(state), ordering: .relaxed)
  }

  /// How many free buffers are too few for anybody who has not been woken.
  private func least(_ state: borrowing State) -> Int {
    var least = state.entries.reduce(Int.max) { min($0, $1.owner?.level ?? .max) }
    let claims = state.claims
    forEachClaim(claims) { place, level in if !claims[place].isCalled { least = min(least, level) } }
    return least
  }

  /// The claims in order, each with how many free buffers are too few for it.
  private func forEachClaim(_ claims: [Claim], _ body: (Int, Int) -> Void) {
    var kept = reserve
    for (place, claim) in claims.enumerated() {
      body(place, kept + claim.buffers - 1)
      if !claim.isResting { kept += claim.buffers }
    }
  }
}
