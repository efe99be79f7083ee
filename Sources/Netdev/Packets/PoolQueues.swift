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
///
/// Senders that wait have an order over the whole pool: `PoolQueues+Wishes.swift`.
final class PoolQueues: Sendable {
  struct Owner: Sendable {
    let loop: LoopExecutor
    /// The queue's, which frees them after it has retired.
    let counters: QueueCounters
    /// Which owner of an entry this is, of all that the pool has had.
    let number: UInt64
    /// It is woken by the buffer that makes more than so many of them free in the shared list.
    var level: Int?
  }

  /// A list as the pool keeps it: an address, so that it can sit behind a lock.
  @safe struct Entry: @unchecked Sendable {
    // Proof of Sendable: beside what is Sendable an address only; what it points to is used under the rule of `LocalSlots`.
    let list: UnsafeMutablePointer<LocalSlots>
    var owner: Owner?
  }

  struct State {
    var entries: [Entry] = []
    var owners: UInt64 = 0
    /// In the order of their turns; of each queue one at most.
    var claims: [Claim] = []

    func index(of list: UnsafeMutablePointer<LocalSlots>) -> Int? {
      entries.firstIndex { unsafe $0.list == list }
    }
  }

  let state = Mutex(State())
  let reserve: Int
  let shared: SharedSlots
  private let ownerCount = Atomic<Int>(0)
  /// Address of the list that was made last, from which the others follow: they live as long as the pool.
  private let lists = Atomic<UInt>(0)
  /// Who waits is woken by the buffer that makes more than so many of them free; `.max` while nobody is to be woken.
  let wakeLevel = Atomic<Int>(.max)
  /// Queues that wait for something, woken or not.
  let waiting = Atomic<Int>(0)
  let claimedCount = Atomic<Int>(0)
  let tickets = Atomic<UInt64>(0)
  let servedCount = Atomic<UInt64>(0)

  /// - Parameters:
  ///   - reserve: buffers that programs get none of.
  ///   - shared: the pool's list.
  init(reserve: Int, shared: SharedSlots) {
    self.reserve = reserve
    self.shared = shared
  }

  /// Queues that share the pool, at least one.
  var count: Int { max(1, ownerCount.load(ordering: .relaxed)) }

  /// Somebody wishes for buffers: who has more than it needs gives them back.
  var isShort: Bool { waiting.load(ordering: .relaxed) > 0 }

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

  /// The list of a queue on this thread's loop; nil where there is none, above all elsewhere than on a loop.
  @inline(__always) var listHere: UnsafeMutablePointer<LocalSlots>? {
    let here = netdev_current_loop_identity()
    guard here != 0 else { return nil }
    var list = unsafe UnsafeMutablePointer<LocalSlots>(bitPattern: lists.load(ordering: .acquiring))
    // Only its own loop finds itself in a list.
    while let candidate = unsafe list, unsafe netdev_load_relaxed_word(&candidate.pointee.loop) != here {
      unsafe list = candidate.pointee.earlier
    }
    return unsafe list
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
        let list = unsafe make()
        unsafe list.pointee.earlier = UnsafeMutablePointer(bitPattern: lists.load(ordering: .relaxed))
        lists.store(UInt(bitPattern: list), ordering: .releasing)
        unsafe state.entries.append(Entry(list: list))
        index = state.entries.count - 1
      }
      let place = index ?? 0
      state.entries[place].owner = owner
      let list = unsafe state.entries[place].list
      unsafe list.pointee.copies = counters.copies
      unsafe netdev_store_release_word(&list.pointee.loop, loop.identity)
      return unsafe list
    }
  }

  /// On the owner's loop, when the list is empty: nobody owns it any more, and whatever its owner wished for is off.
  func retire(_ list: UnsafeMutablePointer<LocalSlots>) {
    ownerCount.subtract(1, ordering: .relaxed)
    unsafe netdev_store_release_word(&list.pointee.loop, 0)
    unsafe list.pointee.copies = nil
    unsafe netdev_store_release_word(&list.pointee.kept, 0)
    // The queue holds its loop until it has returned from here.
    state.withLock { state in
      guard let index = unsafe state.index(of: list) else { return }
      state.entries[index].owner = nil
      state.claims.removeAll { $0.entry == index }
      wake(&state)
    }
  }
}
