internal import CNetdevSystem
internal import LibeventConcurrency

/// Completion: buffers that the device has released go home, and whoever waits for them goes on.
extension QueueTurn {
  /// Takes back what the device has released: buffers go home, waiting senders go on. True when there was some, and the room is
  /// counted anew.
  @discardableResult func takeReleased() -> Bool {
    var taken = 0
    do throws(NetworkDeviceError) {
      // A turn takes at most its budget, so that a fast device does not hold the loop.
      while taken < QueueFrames.turnBudget, unsafe frames.pointee.inFlight > 0 {
        var entries = unsafe MutableSpan(_unsafeStart: released, count: Self.releasedCapacity)
        let count = try driver.takeReleased(into: &entries)
        guard count > 0 else { break }
        unsafe frames.pointee.inFlight -= count
        complete(count)
        taken += count
        if count < Self.releasedCapacity { break }
      }
    } catch {
      breakQueue(error)
    }
    guard taken > 0 else { return false }
    active = true
    statistics.packetsReleased &+= UInt64(taken)
    noteFound()
    if isOverdue { noteInTime() }
    if !watchers.isEmpty { tellWatchers() }
    updateCredits()
    return true
  }

  /// Something was released, or has failed.
  @inline(never) func tellWatchers() {
    while let watcher = watchers.popFirst() { watcher.settle(.granted) }
  }

  /// The first `count` frames in `released` are released: the driver's references end, and with the last one a buffer is free.
  private func complete(_ count: Int) {
    var position = 0
    while position < count {
      let mark = unsafe released[position].rawValue >> 32
      let end: Int
      if Self.isSend(mark: mark) {
        end = completeSends(from: position, to: count)
      } else {
        end = completeRun(of: mark, from: position, to: count)
        if end > position, mark != 0 { settleReleased(FrameEntry.cookie(ofMark: mark), end - position) }
      }
      if end > position {
        position = end
        continue
      }
      let entry = unsafe released[position]
      endFlight(entry)
      if entry.cookie != 0 { settleReleased(entry.cookie, 1) }
      position += 1
    }
  }

  /// Frames that the same task waits for, or nobody, each in one buffer that nobody else held when it was submitted. Nobody else
  /// holds it now: whoever submitted it gave the only reference there was, and others are made from one.
  @inline(__always) private func completeRun(of mark: UInt64, from start: Int, to end: Int) -> Int {
    guard FrameEntry.isOwned(mark: mark) else { return start }
    return unsafe takeHome(released, from: start, to: end) { entry, _ in entry.rawValue >> 32 == mark }
  }

  /// The same of frames that are waited for one by one: these tasks go on.
  @inline(__always) private func completeSends(from start: Int, to end: Int) -> Int {
    let stop = unsafe takeHome(released, from: start, to: end) { entry, _ in Self.isSend(mark: entry.rawValue >> 32) }
    releaseWaiters &-= stop &- start
    for position in start..<stop {
      let cookie = unsafe released[position].cookie
      if cookie == sampler.cookie { endSample() }
      sends.open(cookie & ~Self.sendCookie)
    }
    return stop
  }

  /// Buffers that nobody else holds go back to the list of the queue of this loop, be it of another device, that they came from: only
  /// this thread touches it. Their objects, where there are any, stay with the slots. Goes up to the first frame that is of another
  /// queue, or for which `isNext` says no, and says where that is.
  @inline(__always) private func takeHome(
    _ entries: UnsafeMutablePointer<FrameEntry>, from start: Int, to end: Int,
    while isNext: (FrameEntry, UnsafeMutablePointer<SlotRecord>) -> Bool
  ) -> Int {
    let records = unsafe frames.pointee.records
    let home = unsafe records.advanced(by: Int(entries[start].slot)).pointee.home
    guard unsafe netdev_load_relaxed_word(&home.pointee.loop) == loopIdentity else { return start }
    let free = unsafe home.pointee.count
    // Where the next free slot goes, counted as the frames are.
    let places = unsafe home.pointee.slots + (free - start)
    let last = min(end, start + (LocalSlots.capacity - free))
    var position = start
    while position < last {
      let entry = unsafe entries[position]
      let record = unsafe records.advanced(by: Int(entry.slot))
      guard unsafe isNext(entry, record), unsafe record.pointee.home == home else { break }
      unsafe places[position] = entry.slot
      position &+= 1
    }
    if netdev_poisoning { unsafe poison(places + start, count: position - start) }
    unsafe home.pointee.count = free + (position - start)
    return position
  }

  /// Drops received frames, to which nobody has a reference yet.
  func dropFrames(of block: UnsafeMutablePointer<BurstBlock>) {
    let count = unsafe block.pointee.count
    var position = 0
    while position < count {
      let start = position
      position = unsafe takeHome(block.pointee.entries, from: start, to: count) { _, record in
        unsafe record.pointee.segments == 1
      }
      guard position == start else { continue }
      releaseBuffer(unsafe block.pointee.entries[position].slot)
      position += 1
    }
    unsafe block.pointee.count = 0
  }

  /// In a build with an address sanitizer nobody may touch these buffers while they are free.
  @inline(never) private func poison(_ slots: UnsafeMutablePointer<UInt32>, count: Int) {
    for position in 0..<count { unsafe frames.pointee.records[Int(slots[position])].poison() }
  }

  /// True when the driver's reference to the frame is the only one: the object, if there is one, stays with its slot.
  @inline(__always) private func isLast(_ record: UnsafeMutablePointer<SlotRecord>) -> Bool {
    guard let pointer = unsafe UnsafeRawPointer(bitPattern: record.pointee.object) else { return true }
    // The in-flight entry owns one reference to this object: it is alive.
    var reference = unsafe Unmanaged<PacketObject>.fromOpaque(pointer)
    guard unsafe Self.isUnique(&reference) else { return false }
    netdev_acquire_fence()
    unsafe netdev_note_last(pointer)
    return true
  }

  /// The device is done with a frame: the driver's reference to it ends.
  func endFlight(_ entry: FrameEntry) {
    if entry.hasFront { unsafe SlotRecord.leaveFront(frames.pointee.records.advanced(by: Int(entry.slot))) }
    releaseBuffer(entry.slot)
  }

  /// The last reference but those that programs hold to the frame in `slot` ends.
  @inline(never) func releaseBuffer(_ slot: UInt32) {
    let record = unsafe frames.pointee.records.advanced(by: Int(slot))
    if unsafe isLast(record) {
      unsafe record.pointee.dropLinearCopy()
      unsafe PacketPool.freeFrame(record)
    } else if let pointer = unsafe UnsafeRawPointer(bitPattern: record.pointee.object) {
      unsafe netdev_note_release(pointer)
      unsafe Unmanaged<PacketObject>.fromOpaque(pointer).release()
    }
  }

  @inline(__always) private static func isUnique(_ reference: inout Unmanaged<PacketObject>) -> Bool {
    // An unmanaged reference and a strong one have the same representation: no retain, only the count is read.
    unsafe withUnsafeMutablePointer(to: &reference) { pointer in
      unsafe pointer.withMemoryRebound(to: PacketObject.self, capacity: 1) { strong in
        unsafe isKnownUniquelyReferenced(&strong.pointee)
      }
    }
  }
}

// MARK: - Whoever waits

extension QueueTurn {
  /// The device has released `count` frames of whoever `cookie` stands for.
  func settleReleased(_ cookie: UInt32, _ count: Int) {
    if cookie == sampler.cookie {
      endSample()
      if cookie == samplerCookie { return }
    }
    if cookie & Self.sendCookie != 0 { return settleSend(cookie) }
    guard let place = unsafe waiters.place(cookie) else { return }
    unsafe place._withUnsafeGuaranteedRef { settle($0, count) }
  }

  /// So many frames that this one waits for were released.
  @inline(__always) private func settle(_ waiter: Waiter, _ count: Int) {
    switch waiter.wish {
    case .receipt: settleReceipt(waiter, .granted)
    case .carried: settleCarried(waiter, nil)
    case .batch:
      #if Testing
      if waiter.flights > count, unsafe netdev_fault_is_planted("early-batch") { return waiter.leaveFlight(count + 1) }
      #endif
      waiter.leaveFlight(count)
    default: break
    }
  }

  /// In a cookie that stands for a place in `sends`.
  static var sendCookie: UInt32 { 1 << 29 }

  /// The mark of a frame that one send waits for, in a buffer that nobody else held.
  @inline(__always) private static func isSend(mark: UInt64) -> Bool { mark >> 29 == 1 }

  /// The frame that a send waits for is not in flight any more.
  @inline(__always) private func settleSend(_ cookie: UInt32) {
    releaseWaiters &-= 1
    sends.open(cookie & ~Self.sendCookie)
  }

  /// A frame of whoever `cookie` stands for was not, or not provably, released.
  func settleFailed(_ cookie: UInt32, _ error: NetworkDeviceError) {
    // Not a release: it does not count as one.
    if cookie == sampler.cookie { sampler.cookie = 0 }
    if cookie & Self.sendCookie != 0 {
      let place = cookie & ~Self.sendCookie
      failures[place] = error
      releaseWaiters &-= 1
      return sends.fail(place)
    }
    guard let waiter = waiters[cookie] else { return }
    switch waiter.wish {
    case .receipt: settleReceipt(waiter, .failed(error))
    case .carried: settleCarried(waiter, error)
    case .batch:
      // A pipeline goes on with what comes next.
      if waiter.failure == nil, !(waiter.isPipeline && error.concernsOneFrame) { waiter.failure = error }
      waiter.leaveFlight(1)
    default: break
    }
  }

  /// Any number of tasks may wait for one receipt; when it has been let go, nobody will.
  private func settleReceipt(_ waiter: Waiter, _ outcome: Waiter.Outcome) {
    if waiter.isAbandoned { return waiters.putBack(waiter) }
    waiter.outcome = outcome
    releaseWaiters -= waiter.gate.waiting
    waiter.gate.openAll()
  }
}
