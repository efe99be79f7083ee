internal import CNetdevSystem
internal import LibeventConcurrency

/// A task that waits for something of a queue, with the gate it waits at and what came of it.
///
/// Waiters are made once and used again: a wait allocates nothing. They belong to the queue's loop.
@safe @usableFromInline final class Waiter {
  /// What a task waits for.
  enum Wish { case space, buffers, receipt, batch, carried, packet, burst, ahead, event, sample, closing, time }

  /// What came of it.
  @safe enum Outcome {
    case pending
    /// A sender may submit one frame; a send's buffer is released; the queue is closed.
    case granted
    /// The first of the buffers that a sender asked for; they are its own.
    case buffers(UnsafeMutablePointer<SlotRecord>)
    /// The slot of a received frame.
    case frame(FrameEntry)
    /// A burst of received frames.
    case block(UnsafeMutablePointer<BurstBlock>)
    /// The wait is over without it.
    case failed(NetworkDeviceError)
  }

  /// How far a wait is. Most are granted, and touch nothing of the outcome but this.
  enum Stage { case pending, granted, told }

  /// Position in the table, from 1: 0 is "nobody" in a frame entry.
  @usableFromInline let index: UInt32
  let gate = Gate()
  @safe @exclusivity(unchecked) var wish = Wish.space
  @safe @exclusivity(unchecked) private(set) var stage = Stage.pending
  /// What a wait that is `told` was told.
  @safe @exclusivity(unchecked) private var told = Outcome.pending
  /// The next one that is idle, while this one is.
  @safe @exclusivity(unchecked) fileprivate var nextIdle: Unmanaged<Waiter>?
  /// Frames that a sender wants room for; bytes of the one that it wants buffers for.
  @safe @exclusivity(unchecked) var need = 1
  /// Its turn among those who wait for room or buffers.
  @safe @exclusivity(unchecked) var ticket: UInt64 = 0
  /// When it began to wait for buffers, by the loop's clock; nil while it still waits for room.
  @safe @exclusivity(unchecked) var since: UInt64?
  /// The frames that devices had then.
  @safe @exclusivity(unchecked) var framesOut = PoolQueues.FramesOut.none
  /// Counts uses, so that a late cancellation does not hit the next one.
  @safe @exclusivity(unchecked) var generation: UInt64 = 0

  /// Frames of a batch that are in flight.
  @usableFromInline @safe @exclusivity(unchecked) var flights = 0
  /// A batch waits until no more than so many are in flight; nil while it does not wait.
  @safe @exclusivity(unchecked) var enough: Int?
  /// A batch without an end of its own: frames that fail do not end it, the queue does.
  @safe @exclusivity(unchecked) var isPipeline = false
  /// The first failure of a batch's frames.
  @safe @exclusivity(unchecked) var failure: NetworkDeviceError?
  /// The task that moves packets from a source into this queue, while there is one.
  @safe @exclusivity(unchecked) var pipeline: Task<(any Error)?, Never>?
  /// The queue whose frame this one carries, and who waits for it there.
  @safe @exclusivity(unchecked) var origin: NetworkQueue?
  @safe @exclusivity(unchecked) var originCookie: UInt32 = 0
  /// The receipt that this waiter serves was let go before the release.
  @safe @exclusivity(unchecked) var isAbandoned = false

  init(index: UInt32) { self.index = index }

  /// Frames of a batch have been released, or failed.
  func leaveFlight(_ count: Int) {
    flights -= count
    guard let enough, flights <= enough else { return }
    self.enough = nil
    settle(.granted)
  }

  var outcome: Outcome {
    get {
      switch stage {
      case .pending: .pending
      case .granted: .granted
      case .told: told
      }
    }
    set {
      switch newValue {
      case .pending: begin()
      case .granted: stage = .granted
      default:
        told = newValue
        stage = .told
      }
    }
  }

  /// Waits anew.
  @inline(__always) func begin() {
    if stage == .told { told = .pending }
    stage = .pending
  }

  /// Settles the wait, once, and lets the task go.
  func settle(_ outcome: Outcome) {
    self.outcome = outcome
    gate.open()
  }
}

/// All waiters of a queue.
@safe struct WaiterTable {
  private(set) var all: [Waiter] = []
  /// The same: to look at one costs no reference.
  private var places: [Unmanaged<Waiter>] = unsafe []
  /// The first of those that are not in use.
  private var idle: Unmanaged<Waiter>?

  mutating func take(_ wish: Waiter.Wish) -> Waiter {
    let waiter: Waiter
    if let first = unsafe idle {
      // The table keeps it.
      waiter = unsafe first.takeUnretainedValue()
      unsafe idle = waiter.nextIdle
    } else {
      waiter = Waiter(index: UInt32(all.count + 1))
      all.append(waiter)
      unsafe places.append(.passUnretained(waiter))
    }
    waiter.wish = wish
    waiter.begin()
    waiter.generation &+= 1
    waiter.isAbandoned = false
    return waiter
  }

  mutating func putBack(_ waiter: Waiter) {
    waiter.begin()
    waiter.generation &+= 1
    unsafe waiter.nextIdle = idle
    unsafe idle = .passUnretained(waiter)
  }

  subscript(cookie: UInt32) -> Waiter? { unsafe place(cookie)?.takeUnretainedValue() }

  /// The same without a reference; the table keeps it.
  @inline(__always) func place(_ cookie: UInt32) -> Unmanaged<Waiter>? {
    let position = Int(cookie) &- 1
    return unsafe position >= 0 && position < places.count ? places[position] : nil
  }
}

/// Waiters in order of arrival.
struct WaiterLine {
  private var waiters: [Waiter] = []
  private var head = 0

  var first: Waiter? { head < waiters.count ? waiters[head] : nil }
  var isEmpty: Bool { head == waiters.count }
  var count: Int { waiters.count - head }

  mutating func append(_ waiter: Waiter) { waiters.append(waiter) }

  @discardableResult mutating func popFirst() -> Waiter? {
    guard head < waiters.count else { return nil }
    let waiter = waiters[head]
    head += 1
    if head == waiters.count {
      waiters.removeAll(keepingCapacity: true)
      head = 0
    } else if head >= 64 {
      waiters.removeFirst(head)
      head = 0
    }
    return waiter
  }

  /// Takes one out of the middle; false when it is not here.
  mutating func remove(_ waiter: Waiter) -> Bool {
    guard let position = waiters[head...].firstIndex(where: { $0 === waiter }) else { return false }
    waiters.remove(at: position)
    if head == waiters.count {
      waiters.removeAll(keepingCapacity: true)
      head = 0
    }
    return true
  }
}

// How a task waits on its queue.
extension NetworkQueue {
  /// Waits until the waiter is settled, or the task is cancelled while it stands in a line; the waiter is then idle again.
  func wait(_ waiter: Waiter) async -> Waiter.Outcome {
    let index = waiter.index
    let generation = waiter.generation
    await withTaskCancellationHandler {
      // Through `self`: a closure that does not use it would leave the actor, and the gate belongs to the loop.
      await self.park(waiter)
    } onCancel: {
      loop.execute { self.assumeIsolated { $0.cancelWait(index, generation) } }
    }
    let outcome = waiter.outcome
    turn.waiters.putBack(waiter)
    return outcome
  }

  /// Waits for room or buffers, which the statistics show.
  func waitToSend(_ waiter: Waiter) async -> Waiter.Outcome {
    let since = loop.now
    turn.statistics.sendersWaiting &+= 1
    let outcome = await wait(waiter)
    turn.statistics.sendersWaiting &-= 1
    turn.statistics.senderWaitTime &+= loop.now &- since
    return outcome
  }

  /// Lets the loop's turn end, and goes on in the next one: what a task does that has used up a budget. A queue that has ended has no
  /// turns any more.
  func waitForNextTurn() async {
    guard !turn.isFinished else { return }
    turn.loop.requestTurn()
    await turn.nextTurn.pass()
  }

  /// Suspends at the waiter's gate, unless it has been settled already.
  func park(_ waiter: Waiter) async {
    if case .pending = waiter.outcome { await waiter.gate.pass() }
  }

  /// A waiting task was cancelled: it goes on at once, unless what it waits for has just come.
  func cancelWait(_ index: UInt32, _ generation: UInt64) {
    #if Testing
    if unsafe netdev_fault_is_planted("leaked-waiter") { return }
    #endif
    guard let waiter = turn.waiters[index], waiter.generation == generation else { return }
    #if Testing
    if unsafe netdev_fault_is_planted("deaf-consumer"), [.packet, .burst, .ahead].contains(waiter.wish) { return }
    #endif
    if turn.senders.remove(waiter) || turn.bufferLine.remove(waiter) {
      #if Testing
      if unsafe netdev_fault_is_planted("kept-room") { return waiter.settle(.failed(.cancelled("wait"))) }
      #endif
      // Who stood behind it may need less.
      turn.updateCredits()
      waiter.settle(.failed(.cancelled("wait")))
    } else if turn.consumers.remove(waiter) || turn.watchers.remove(waiter) || turn.closers.remove(waiter)
      || turn.sleepers.remove(waiter)
    {
      waiter.settle(.failed(.cancelled("wait")))
    }
  }
}
