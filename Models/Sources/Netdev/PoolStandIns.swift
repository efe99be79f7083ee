internal import Explorer
internal import CNetdevSystem

// What the linked files use and what is not modelled, or is the explorer's.

typealias Atomic = ModelAtomic
typealias Mutex = ModelMutex

/// A slot's record, of which the shared list uses the link.
struct SlotRecord {
  private let link: PlainWord
  /// What the slot's owner has written into its buffer.
  let contents: PlainWord

  init(_ slot: Int) {
    link = PlainWord("the link of slot \(slot)")
    contents = PlainWord("the buffer of slot \(slot)")
  }

  var next: UInt32 {
    get { UInt32(truncatingIfNeeded: link.value) }
    nonmutating set { link.value = UInt64(newValue) }
  }
}

struct QueueCounters: Sendable {
  var framesBack: UInt64 { 0 }
  var packetsSubmitted: UInt64 { 0 }
}

/// A pool as its lists know it.
@usableFromInline final class PacketPool {
  let records: UnsafeMutablePointer<SlotRecord>
  private let count: Int
  let shared: SharedSlots
  let queues = PoolQueues()

  /// A pool of `count` slots, all of them in somebody's hands.
  init(_ count: Int) {
    self.count = count
    records = .allocate(capacity: count)
    for slot in 0..<count { (records + slot).initialize(to: SlotRecord(slot)) }
    shared = SharedSlots(records: records)
  }

  deinit {
    queues.deallocate()
    records.deinitialize(count: count)
    records.deallocate()
  }

  /// As the pool's `giveBack`.
  func giveBack(_ slot: UInt32) {
    shared.push(slot)
    netdev_full_fence()
    queues.fulfil(shared.count) { shared.count }
  }

  /// As the pool's `spill`.
  func spill(_ list: UnsafeMutablePointer<LocalSlots>, keeping: Int) {
    while list.pointee.count > keeping {
      list.pointee.count -= 1
      giveBack(list.pointee.slots[list.pointee.count])
    }
  }
}
