internal import Synchronization

/// Free slots for anybody: a lock-free stack to push to, linked through the records, popped under a lock.
///
/// One popper at a time makes the classic stack safe from ABA: a slot that was the head stays where it is until this
/// popper takes it, since others only push above it. Pushing (a packet dropped anywhere) never waits.
@safe final class SharedSlots: Sendable {
  /// Count in the upper half, slot number + 1 of the first in the lower; one word, so that both change together.
  private let head = Atomic<UInt64>(0)
  private let popping = Mutex<Void>(())
  // Proof: a record's link belongs to whoever holds the slot; on the list that is the list, ordered by `head`.
  nonisolated(unsafe) private let records: UnsafeMutablePointer<SlotRecord>

  init(records: UnsafeMutablePointer<SlotRecord>) { unsafe self.records = records }

  var count: Int { Int(head.load(ordering: .relaxed) >> 32) }

  func push(_ slot: UInt32) {
    var old = head.load(ordering: .relaxed)
    while true {
      unsafe records[Int(slot)].next = UInt32(truncatingIfNeeded: old)
      let new = ((old >> 32) &+ 1) << 32 | UInt64(slot &+ 1)
      let (exchanged, original) = head.compareExchange(expected: old, desired: new, ordering: .acquiringAndReleasing)
      if exchanged { return }
      old = original
    }
  }

  /// Takes up to `max` slots but leaves at least `leaving` on the list.
  func pop(into slots: UnsafeMutablePointer<UInt32>, max: Int, leaving: Int) -> Int {
    popping.withLock { _ in
      var taken = 0
      var old = head.load(ordering: .acquiring)
      while taken < max, Int(old >> 32) > leaving {
        let slot = UInt32(truncatingIfNeeded: old) &- 1
        let below = unsafe records[Int(slot)].next
        let new = ((old >> 32) &- 1) << 32 | UInt64(below)
        let (exchanged, original) = head.compareExchange(expected: old, desired: new, ordering: .acquiringAndReleasing)
        guard exchanged else {
          old = original
          continue
        }
        unsafe slots[taken] = slot
        taken += 1
        old = new
      }
      return taken
    }
  }
  /// Takes exactly `count` slots, handing each to `body`, or none: at least `leaving` stay on the list.
  func pop(exactly count: Int, leaving: Int, _ body: (UInt32) -> Void) -> Bool {
    popping.withLock { _ in
      var old = head.load(ordering: .acquiring)
      // Whoever holds the lock alone takes away: there are never fewer than now until it is let go.
      guard Int(old >> 32) - leaving >= count else { return false }
      var left = count
      while left > 0 {
        let slot = UInt32(truncatingIfNeeded: old) &- 1
        let below = unsafe records[Int(slot)].next
        let new = ((old >> 32) &- 1) << 32 | UInt64(below)
        let (exchanged, original) = head.compareExchange(expected: old, desired: new, ordering: .acquiringAndReleasing)
        guard exchanged else {
          old = original
          continue
        }
        body(slot)
        left -= 1
        old = new
      }
      return true
    }
  }
}
