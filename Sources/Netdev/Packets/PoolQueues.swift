internal import CNetdevSystem
internal import LibeventConcurrency
internal import Synchronization

/// The queues that share a pool: the list of free slots of each, what it waits for, and the frames that its device has.
///
/// What a queue leaves here is in its entry, and goes with it: an entry has an owner from `add` to `retire`, both on the queue's
/// loop, and nobody is woken, or kept alive, beyond that.
///
/// Why no free buffer is overlooked. *In the pool's shared list*: whoever gives one back pushes it and then looks for wishes;
/// whoever wishes says so and then looks at the list. *In a queue's own list*: at the end of each turn of its loop
/// a queue looks for wishes, and gives up what it has there while there are any. A queue that sleeps has said what it
/// kept (`LocalSlots.kept`) and then looked for wishes; whoever wishes says so and then wakes those that kept some. Between each
/// of these pairs is a full fence on both sides: one of the two sees the other.
final class PoolQueues: Sendable {
  /// What a queue waits for: to be woken by the buffer that makes more than `level` of them free in the shared list.
  struct Wish: Sendable {
    let level: Int
    /// Buffers for a packet whose sender waits: new packets, and rings that have what they need, leave them so many beyond the
    /// reserve.
    var claim = 0
  }

  private struct Owner: Sendable {
    let loop: LoopExecutor
    /// The queue's, which frees them after it has retired.
    let counters: QueueCounters
    /// Which owner of an entry this is, of all that the pool has had.
    let number: UInt64
    var wish: Wish?
  }

  /// A list as the pool keeps it: an address, so that it can sit behind a lock.
  @safe private struct Entry: @unchecked Sendable {
    // Proof of Sendable: beside what is Sendable an address only; what it points to is used under the rule of `LocalSlots`.
    let list: UnsafeMutablePointer<LocalSlots>
    var owner: Owner?
  }

  private struct State {
    var entries: [Entry] = []
    var owners: UInt64 = 0
  }

  private let state = Mutex(State())
  private let ownerCount = Atomic<Int>(0)
  /// The least that somebody wishes for; `.max` while nobody does.
  private let wakeLevel = Atomic<Int>(.max)
  private let largestClaim = Atomic<Int>(0)

  /// Queues that share the pool, at least one.
  var count: Int { max(1, ownerCount.load(ordering: .relaxed)) }

  /// Somebody wishes for buffers: who has more than it needs gives them back.
  var isShort: Bool { wakeLevel.load(ordering: .relaxed) != .max }

  /// Buffers that a sender waits for; of several senders, the most that one does.
  var claim: Int { largestClaim.load(ordering: .relaxed) }

  /// Slots in queues' own lists: exact for the queues of the loop that asks, and of others what they kept when they slept last.
  var free: Int {
    let here = unsafe UInt(bitPattern: netdev_current_loop())
    return state.withLock { state in
      var sum = 0
      for entry in state.entries {
        let isOurs = unsafe here != 0 && netdev_load_relaxed_word(&entry.list.pointee.loop) == here
        sum += unsafe isOurs ? entry.list.pointee.count : Int(netdev_load_relaxed_word(&entry.list.pointee.kept))
      }
      return sum
    }
  }

  /// At the pool's end.
  func deallocate() {
    for entry in state.withLock({ $0.entries }) {
      unsafe entry.list.pointee.slots.deallocate()
      unsafe entry.list.deallocate()
    }
  }
}

// MARK: - Owners

extension PoolQueues {
  /// A list for a queue on its loop. A closed queue's serves the next one: a pool that outlives many devices does not grow.
  func add(
    _ loop: LoopExecutor, _ counters: QueueCounters, make: () -> UnsafeMutablePointer<LocalSlots>
  ) -> UnsafeMutablePointer<LocalSlots> {
    ownerCount.add(1, ordering: .relaxed)
    return unsafe state.withLock { state in
      state.owners += 1
      let owner = Owner(loop: loop, counters: counters, number: state.owners)
      var index = state.entries.firstIndex { $0.owner == nil }
      if index == nil {
        unsafe state.entries.append(Entry(list: make()))
        index = state.entries.count - 1
      }
      let place = index ?? 0
      state.entries[place].owner = owner
      let list = unsafe state.entries[place].list
      unsafe netdev_store_release_word(&list.pointee.loop, loop.identity)
      return unsafe list
    }
  }

  /// On the owner's loop, when the list is empty: nobody owns it any more, and whatever its owner wished for is off.
  func retire(_ list: UnsafeMutablePointer<LocalSlots>) {
    ownerCount.subtract(1, ordering: .relaxed)
    unsafe netdev_store_release_word(&list.pointee.loop, 0)
    unsafe netdev_store_release_word(&list.pointee.kept, 0)
    // The queue holds its loop until it has returned from here.
    state.withLock { state in
      guard let index = state.entries.firstIndex(where: { unsafe $0.list == list }) else { return }
      state.entries[index].owner = nil
      noteWishes(state)
    }
  }
}

// MARK: - Wishes

extension PoolQueues {
  /// On the owner's loop: it wants to be woken, once; a later wish is joined to the earlier, and a later claim takes the
  /// earlier's place. Whoever wishes looks once more afterwards. A claim stands until it is withdrawn.
  func wish(_ wish: Wish, for list: UnsafeMutablePointer<LocalSlots>) {
    state.withLock { state in
      guard let index = state.entries.firstIndex(where: { unsafe $0.list == list }) else { return }
      let wasShort = isShort
      let known = state.entries[index].owner?.wish
      state.entries[index].owner?.wish = Wish(
        level: min(wish.level, known?.level ?? .max), claim: wish.claim > 0 ? wish.claim : known?.claim ?? 0)
      noteWishes(state)
      netdev_full_fence()
      // From here on what comes free is to be seen; what has been kept is called for once.
      guard !wasShort else { return }
      for entry in state.entries where unsafe entry.list != list {
        if unsafe netdev_load_relaxed_word(&entry.list.pointee.kept) > 0 { entry.owner?.loop.wake() }
      }
    }
  }

  /// On the owner's loop: it wants nothing any more.
  func withdraw(_ list: UnsafeMutablePointer<LocalSlots>) {
    state.withLock { state in
      guard let index = state.entries.firstIndex(where: { unsafe $0.list == list }) else { return }
      state.entries[index].owner?.wish = nil
      noteWishes(state)
    }
  }

  /// From any thread: a slot comes into the pool's shared list, and those are woken for whom there are enough now.
  func giveBack(_ slot: UInt32, to shared: SharedSlots) {
    shared.push(slot)
    netdev_full_fence()
    guard shared.count > wakeLevel.load(ordering: .relaxed) else { return }
    fulfil(shared)
  }

  private func fulfil(_ shared: SharedSlots) {
    state.withLock { state in
      let free = shared.count
      for index in state.entries.indices {
        guard let owner = state.entries[index].owner, let wish = owner.wish, wish.level < free else { continue }
        // What it has claimed is its own until it has been there.
        state.entries[index].owner?.wish = wish.claim > 0 ? Wish(level: .max, claim: wish.claim) : nil
        owner.loop.wake()
      }
      noteWishes(state)
    }
  }

  /// On the owner's loop, which is about to sleep: it keeps so many free slots. True when they are wanted elsewhere already.
  func keep(_ count: Int, in list: UnsafeMutablePointer<LocalSlots>) -> Bool {
    guard unsafe list.pointee.kept != UInt(count) else { return false }
    unsafe netdev_store_release_word(&list.pointee.kept, UInt(count))
    guard count > 0 else { return false }
    netdev_full_fence()
    return isShort
  }

  private func noteWishes(_ state: borrowing State) {
    var (level, claim) = (Int.max, 0)
    for entry in state.entries {
      guard let wish = entry.owner?.wish else { continue }
      level = min(level, wish.level)
      claim = max(claim, wish.claim)
    }
    wakeLevel.store(level, ordering: .relaxed)
    largestClaim.store(claim, ordering: .relaxed)
  }
}

// MARK: - Frames with devices

extension PoolQueues {
  /// The frames that the devices of a pool had at one moment: each may free a buffer when it comes back.
  struct FramesOut: Sendable {
    /// By owner: how many frames it will have had back when all of these are.
    fileprivate let marks: [(owner: UInt64, back: UInt64)]
    static var none: FramesOut { FramesOut(marks: []) }
  }

  /// The frames that devices have now.
  func framesOut() -> FramesOut {
    state.withLock { state in
      FramesOut(
        marks: state.entries.compactMap { entry in
          guard let owner = entry.owner else { return nil }
          // Read in this order: what is back was submitted before.
          let back = owner.counters.framesBack
          let submitted = owner.counters.packetsSubmitted
          return back < submitted ? (owner.number, submitted) : nil
        })
    }
  }

  /// True while a device has any of these frames. A device that gives frames back in another order than it got them is
  /// counted by how many are back.
  func isAnyOut(_ frames: FramesOut) -> Bool {
    guard !frames.marks.isEmpty else { return false }
    return state.withLock { state in
      frames.marks.contains { mark in
        guard let owner = state.entries.first(where: { $0.owner?.number == mark.owner })?.owner else { return false }
        return owner.counters.framesBack < mark.back
      }
    }
  }
}
