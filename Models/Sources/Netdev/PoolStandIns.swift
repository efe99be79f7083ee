internal import Explorer

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
  /// Nobody changes packets here.
  var copies: UnsafeMutablePointer<UInt64>? { nil }
}

/// A pool as its lists know it.
@usableFromInline final class PacketPool {
  let records: UnsafeMutablePointer<SlotRecord>
  private let count: Int
  let shared: SharedSlots
  let queues: PoolQueues

  /// A pool of `count` slots, all of them in somebody's hands.
  init(_ count: Int) {
    self.count = count
    records = .allocate(capacity: count)
    for slot in 0..<count { (records + slot).initialize(to: SlotRecord(slot)) }
    shared = SharedSlots(records: records)
    queues = PoolQueues(reserve: 0, shared: shared)
  }

  deinit {
    queues.deallocate()
    records.deinitialize(count: count)
    records.deallocate()
  }

  /// As the pool's own, of which no object that travels with the slot is left here.
  func giveBack(_ slot: UInt32) { queues.giveBack(slot) }
}
