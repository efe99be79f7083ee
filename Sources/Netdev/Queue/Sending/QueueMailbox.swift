internal import CNetdevSystem
internal import LibeventConcurrency
internal import Synchronization

/// What code outside the queue's loop leaves for the loop: packets it has submitted, and packets it was given ahead and
/// has not used.
///
/// `submit` from elsewhere leaves a packet here and returns: no hop, and at most one wake-up for 32 packets. While a consumer
/// outside works on packets that it was given ahead, nobody is woken: that consumer comes back for more, and what it has
/// left here is taken then; a timer of the loop bounds the wait. What does not fit is refused: its sender waits in the
/// queue's line, and until the line is empty everybody behind it does. What lies here can be sent: a packet that is not in the
/// queue's pool is copied by whoever leaves it, and where there is no buffer for it, its sender is told.
final class QueueMailbox: Sendable {
  /// Packets that may lie here.
  static let capacity = 256
  /// Packets a wake-up.
  static let batch = 32

  private struct State: ~Copyable {
    var packets = PacketRow(capacity: QueueMailbox.capacity)
    /// Addresses of blocks of received frames that nobody has used.
    var returned: [UInt] = []
    var isOpen = true
    /// Why the queue has ended.
    var end: NetworkDeviceError?
    var hasEnded: Bool { end != nil }
    var isDeferring = false
    /// Packets copied on their way here since the loop last asked.
    var copied: UInt64 = 0
  }

  private let loop: LoopExecutor
  private let pool: PacketPool
  private let maximumFrame: Int
  private let state = Mutex(State())
  private let hasSome = Atomic<Bool>(false)
  private let hasReturned = Atomic<Bool>(false)
  // Counted under the lock, read without it.
  private let accepted = Atomic<UInt64>(0)
  private let wakeUps = Atomic<UInt64>(0)
  private let dropped = Atomic<UInt64>(0)
  private let refused = Atomic<UInt64>(0)
  private let failed = Atomic<UInt64>(0)

  init(loop: LoopExecutor, pool: PacketPool, maximumFrame: Int) {
    self.loop = loop
    self.pool = pool
    self.maximumFrame = maximumFrame
  }

  /// From any thread: leaves a packet, or returns it when it must go the long way: a copy then, where it lay elsewhere.
  func offer(_ packet: consuming Packet) -> Packet? {
    guard packet.count <= maximumFrame else { return consume packet }
    return left(consume packet, returnsCopy: true)
  }

  /// From any thread: leaves a packet of a length that the device takes, or returns it, itself, when there is no room for it.
  func tryOffer(_ packet: consuming Packet) -> Packet? {
    guard room > 0 else { return consume packet }
    return left(consume packet, returnsCopy: false)
  }

  /// Leaves a packet, or returns it: as the copy that was made of it on the way, or itself.
  @inline(__always) private func left(_ packet: consuming Packet, returnsCopy: Bool) -> Packet? {
    // Moved, also where nothing is optimised: the loop may take it before this returns, and must find it unshared.
    var offered: Packet?
    guard unsafe !pool.owns(packet.record) else {
      offered = consume packet
      leave(&offered, isCopy: false)
      return offered
    }
    offered = pool.adopt(packet)
    guard offered != nil else { return consume packet }
    leave(&offered, isCopy: true)
    return returnsCopy || offered == nil ? offered : consume packet
  }

  /// Takes what is offered, if there is room for it.
  private func leave(_ offered: inout Packet?, isCopy: Bool) {
    let wakes = state.withLock { state in
      if isCopy, !state.hasEnded {
        state.copied &+= 1
        hasSome.store(true, ordering: .relaxed)
      }
      guard state.isOpen, state.packets.count < Self.capacity, let taken = offered.take() else { return false }
      state.packets.append(taken)
      accepted.add(1, ordering: .relaxed)
      let count = state.packets.count
      hasSome.store(true, ordering: .relaxed)
      guard (count == 1 && !state.isDeferring) || count.isMultiple(of: Self.batch) else { return false }
      wakeUps.add(1, ordering: .relaxed)
      return true
    }
    if wakes { loop.wake() }
  }

  /// From any thread: packets that may be left now.
  var room: Int { state.withLock { $0.isOpen ? Self.capacity - $0.packets.count : 0 } }

  /// From any thread: why the queue has ended; nil while it goes on.
  var end: NetworkDeviceError? { state.withLock { $0.end } }

  /// From any thread: packets that whoever does not wait found no room for, and frames that the device never takes, which the loop
  /// tells of.
  func note(refused count: Int = 0, failed frames: Int = 0) {
    if count > 0 { refused.add(UInt64(count), ordering: .relaxed) }
    guard frames > 0 else { return }
    failed.add(UInt64(frames), ordering: .relaxed)
    loop.wake()
  }

  /// The two so far.
  var refusals: (refused: UInt64, failed: UInt64) {
    (refused.load(ordering: .relaxed), failed.load(ordering: .relaxed))
  }

  /// From any thread: leaves a block of received frames for the loop to take back; false when the queue has ended.
  ///
  /// `Models/Sources/LibeventConcurrency/LoopModels.swift` has a copy of the hint, the lock left out, and of who takes it.
  func giveBack(block address: UInt) -> Bool {
    let isTaken = state.withLock { state in
      guard !state.hasEnded else { return false }
      state.returned.append(address)
      hasReturned.store(true, ordering: .relaxed)
      return true
    }
    #if Testing
    if unsafe netdev_fault_is_planted("unwoken-return") { return isTaken }
    #endif
    if isTaken { loop.wake() }
    return isTaken
  }

  /// From any thread: received frames came back when the queue had ended, and are dropped.
  func noteDropped(_ frames: Int) { dropped.add(UInt64(frames), ordering: .relaxed) }

  /// Received frames that came back too late.
  var droppedReturns: UInt64 { dropped.load(ordering: .relaxed) }

  // MARK: On the loop

  /// Blocks have come back.
  var hasReturns: Bool { hasReturned.load(ordering: .relaxed) }

  /// Takes the blocks that came back, the latest first.
  func takeReturned() -> [UInt] {
    state.withLock { state in
      hasReturned.store(false, ordering: .relaxed)
      defer { state.returned = [] }
      return state.returned.reversed()
    }
  }

  /// Nothing is taken any more.
  func end(_ cause: NetworkDeviceError) {
    state.withLock { state in
      state.isOpen = false
      state.end = cause
    }
  }

  /// There is something to take; what a task left before it came to the loop is seen there.
  var isEmpty: Bool { !hasSome.load(ordering: .relaxed) }

  /// All that is there joins `packets`; says how many were copied on their way here since the last time.
  func takeAll(into packets: inout PacketRow) -> UInt64 {
    state.withLock { state in
      hasSome.store(false, ordering: .relaxed)
      packets.take(&state.packets)
      defer { state.copied = 0 }
      return state.copied
    }
  }

  /// Refuses packets, or takes them again.
  func setOpen(_ isOpen: Bool) { state.withLock { $0.isOpen = isOpen && !$0.hasEnded } }

  /// While deferring, only a full batch wakes the loop.
  func setDeferring(_ isDeferring: Bool) { state.withLock { $0.isDeferring = isDeferring } }

  /// Packets left here so far, and wake-ups for them. From any thread, without a lock.
  var counts: (packets: UInt64, wakes: UInt64) {
    (accepted.load(ordering: .relaxed), wakeUps.load(ordering: .relaxed))
  }
}
