internal import CNetdevSystem
internal import LibeventConcurrency

/// What a queue does on its loop, synchronously: the turn, publication, completion, reception, refilling.
///
/// Owned by its `NetworkQueue`, made on the queue's loop and touched there only. `driver` is a constant of a final class,
/// so that reaching it costs one witness call a burst and no retain. Its variables are `@exclusivity(unchecked)`: one thread
/// touches them, and no access spans a call that could come back to them.
@safe @usableFromInline
final class QueueTurn {
  let driver: any QueueDriver
  private let signals: SignalTarget
  /// What code outside the loop leaves for it.
  let mailbox: QueueMailbox
  let frames: UnsafeMutablePointer<QueueFrames>
  let loop: LoopExecutor
  let pool: PacketPool
  let local: UnsafeMutablePointer<LocalSlots>
  let busyPoll: UInt64
  /// Free places that make refilling worth touching the ring.
  let refillBatch: Int
  /// Frames that the transmit ring takes.
  let transmitCapacity: Int
  /// Buffers that the receive ring takes.
  let receiveCapacity: Int
  /// Buffers that the longest frame takes: with fewer on the ring a device may have to wait with it.
  let frameBuffers: Int
  /// Free buffers of the pool below which a ring that holds many frames gets no more: half of the reserve.
  let lowWater: Int
  /// The loop as its thread knows it.
  let loopIdentity: UInt
  /// Free places that make refilling urgent: it does not wait for the end of the turn.
  let urgentRoom: Int
  /// Room to take released frames.
  let released: UnsafeMutablePointer<FrameEntry>
  static let releasedCapacity = 64

  // MARK: The end

  /// Set when the queue takes no more work: closed, or broken with this cause.
  @safe @exclusivity(unchecked) var end: NetworkDeviceError?
  /// False from when `end` is set: to ask this costs no copy of an error.
  @safe @exclusivity(unchecked) var isOpen = true
  @safe @exclusivity(unchecked) var isFinished = false
  /// Called once when the queue breaks by itself, with the cause.
  let onBroken: @Sendable (NetworkDeviceError) -> Void

  // MARK: Pairs that are not in use

  /// Frames go to the ring of this queue: while it is open and its pair is in use. To ask this is to ask whether it is open, too.
  @safe @exclusivity(unchecked) var isPublishing = true
  /// Where they go otherwise.
  @safe @exclusivity(unchecked) var route = SendRoute.own
  /// Frames that another pair carries, by whom they are waited for here.
  @safe @exclusivity(unchecked) var away: [UInt32: Int] = [:]
  /// Frames of other pairs that have found no room yet, oldest first.
  @safe @exclusivity(unchecked) var carried: [CarriedFrame] = []
  /// There are some: to ask this costs less.
  @safe @exclusivity(unchecked) var isCarrying = false
  // Proof: the queue sets it when it begins to turn, and keeps itself until it has ended and left its loop.
  var owner: Unmanaged<NetworkQueue>?

  // MARK: Who waits

  @safe @exclusivity(unchecked) var waiters = WaiterTable()
  /// For room.
  @safe @exclusivity(unchecked) var senders = WaiterLine()
  /// For room and for buffers, each for both at the same time: their packets lie elsewhere.
  @safe @exclusivity(unchecked) var bufferLine = WaiterLine()
  /// For received frames.
  @safe @exclusivity(unchecked) var consumers = WaiterLine()
  /// For the next release, whosever it is.
  @safe @exclusivity(unchecked) var watchers = WaiterLine()
  /// Of the frames that failed, those that whoever waits for releases has been told.
  @safe @exclusivity(unchecked) var failuresTold: UInt64 = 0
  /// For a time.
  @safe @exclusivity(unchecked) var sleepers = WaiterLine()
  /// For the end.
  @safe @exclusivity(unchecked) var closers = WaiterLine()
  /// Tasks that wait for the release of one frame each, by the places at which they do, and what came of a frame that was not
  /// released.
  let sends = GateRow()
  @safe @exclusivity(unchecked) var failures: [UInt32: NetworkDeviceError] = [:]
  /// How many wait for the release of one frame, in `sends` or by a receipt.
  @safe @exclusivity(unchecked) var releaseWaiters = 0
  /// For the next turn, when they have used up the budget of this one.
  let nextTurn = Gate()
  /// An event loop that is not ours.
  @safe @exclusivity(unchecked) var pollable: PollableState?
  /// What the program does again and again, until the queue ends.
  @safe @exclusivity(unchecked) var repetitions: [LoopRepetition] = []

  // MARK: Room in the ring

  /// Room promised to senders that have not used it yet.
  @safe @exclusivity(unchecked) var granted = 0
  /// It is room that the first of the buffer line waits for.
  @safe @exclusivity(unchecked) var bufferLineLacksRoom = false
  /// Frames accepted up to the beginning of this turn, against the budget that makes a turn end.
  @safe @exclusivity(unchecked) var acceptedBefore: UInt64 = 0
  /// Frames accepted so far.
  var accepted: UInt64 { unsafe statistics.packetsSubmitted &+ UInt64(frames.pointee.pending.pointee.count) }

  /// The turn in which whoever does not wait found the ring full, and the device had nothing to release.
  @safe @exclusivity(unchecked) var lookedInVain: UInt64 = 0

  /// Looks for releases in this turn, of tasks that would suspend for them.
  @safe @exclusivity(unchecked) var looks = 0
  /// In this turn the device takes its own on this loop.
  @safe @exclusivity(unchecked) var isServedHere = false

  // MARK: Buffers of the pool

  /// The pool may still know of a wish of the receive ring's, or of those who wait for room.
  @safe @exclusivity(unchecked) var hasWish = false
  /// The pool knows what the first of the buffer line waits for.
  @safe @exclusivity(unchecked) var hasClaim = false
  /// Looks at the line until its claim stands again, which rests: 0 while it stands.
  @safe @exclusivity(unchecked) var restingLooks = 0
  /// What the timer saw of the pool when it looked last.
  @safe @exclusivity(unchecked) var seen = PoolProgress()
  /// Bounds how long the buffer line waits.
  @safe @exclusivity(unchecked) private(set) var bufferTimer: LoopTimer?
  @safe @exclusivity(unchecked) var bufferTimerRuns = false
  /// When one of the line was served last, or a device was seen to have frames from before the first of them came.
  @safe @exclusivity(unchecked) var lastBufferAt: UInt64 = 0

  // MARK: What comes from outside

  /// Packets from the mailbox that have found no room yet: they stand before all senders.
  @safe @exclusivity(unchecked) var backlog = PacketRow(capacity: QueueMailbox.capacity)
  /// The mailbox is closed because somebody waits for room.
  @safe @exclusivity(unchecked) var isRefusing = false
  /// Bounds how long a submission from outside may wait for its consumer to come back.
  @safe @exclusivity(unchecked) private(set) var submissionTimer: LoopTimer?
  @safe @exclusivity(unchecked) var submissionTimerRuns = false
  /// Bursts given ahead to consumers outside, and those the timer knows of.
  @safe @exclusivity(unchecked) var handOuts: UInt64 = 0
  @safe @exclusivity(unchecked) var handOutsSeen: UInt64 = 0

  // MARK: Received frames

  /// Frames taken from the driver in this turn, against the budget that makes a turn end.
  @safe @exclusivity(unchecked) var receivedThisTurn = 0
  /// Empty blocks, linked.
  @safe @exclusivity(unchecked) var idleBlock: UnsafeMutablePointer<BurstBlock>?
  /// Bursts that a program holds.
  @safe @exclusivity(unchecked) var blocksOut = 0

  // MARK: Counting

  let statistics: QueueCounters
  @safe @exclusivity(unchecked) var sampler = ResidencySampler()
  /// Stands for frames that nobody but the sampler watches.
  let samplerCookie: UInt32
  /// Called with what the log should have.
  let tell: @Sendable (QueueNotice) -> Void
  /// Copies that make a line in the log.
  @safe @exclusivity(unchecked) var copiesToTell = QueueNotice.manyCopies
  @safe @exclusivity(unchecked) var hasToldOfHeap = false

  // MARK: The turn, and the loop's sleep

  @safe @exclusivity(unchecked) private var hook: TurnHook.Token?
  @safe @exclusivity(unchecked) var active = false
  @safe @exclusivity(unchecked) private var polledSince: UInt64 = 0
  @safe @exclusivity(unchecked) private var armed = false
  /// When armed: also for received frames.
  @safe @exclusivity(unchecked) private var armedForReceived = false
  /// The device has interrupted, and what it interrupted for has not been taken yet.
  @safe @exclusivity(unchecked) private var isInterrupted = false
  /// Buffers were still with the device when the bound ended that a delayed interrupt has: from here on each release is
  /// reported, until one is seen.
  @safe @exclusivity(unchecked) private(set) var isOverdue = false
  /// How long until the next look for buffers that are overdue.
  @safe @exclusivity(unchecked) private var overduePause = QueueTurn.releaseBound
  @safe @exclusivity(unchecked) private var releaseTimer: LoopTimer?
  @safe @exclusivity(unchecked) private var releaseTimerRuns = false

  init(
    _ driver: any QueueDriver, signals: SignalTarget, mailbox: QueueMailbox, counters: QueueCounters,
    loop: LoopExecutor, pool: PacketPool, maximumFrame: Int, busyPoll: Duration,
    tell: @escaping @Sendable (QueueNotice) -> Void,
    onBroken: @escaping @Sendable (NetworkDeviceError) -> Void
  ) {
    self.driver = driver
    self.signals = signals
    self.mailbox = mailbox
    statistics = counters
    unsafe frames = .allocate(capacity: 1)
    self.loop = loop
    self.pool = pool
    unsafe local = pool.makeLocalList(loop: loop, counters: counters)
    self.busyPoll = busyPoll.nanosecondsRoundedUp
    self.onBroken = onBroken
    self.tell = tell
    samplerCookie = waiters.take(.sample).index
    unsafe released = .allocate(capacity: Self.releasedCapacity)
    unsafe released.initialize(repeating: FrameEntry(rawValue: 0), count: Self.releasedCapacity)
    transmitCapacity = driver.transmitCapacity
    receiveCapacity = driver.receiveRoom
    refillBatch = min(16, max(1, receiveCapacity / 4))
    let bufferRoom = pool.configuration.slotSize - pool.configuration.headroom
    // A driver may say any number.
    let longest = Int(UInt32(clamping: maximumFrame))
    frameBuffers = max(1, min(receiveCapacity, (longest + bufferRoom) / bufferRoom))
    lowWater = (pool.configuration.reserve + 1) / 2
    loopIdentity = loop.identity
    urgentRoom = max(1, receiveCapacity / 2)
    unsafe frames.initialize(
      to: QueueFrames(self, pool: pool, maximumFrame: maximumFrame, room: transmitCapacity))
    unsafe signals.turn = .passUnretained(self)
  }

  deinit {
    signals.turn = nil
    unsafe BurstBlock.free(frames.pointee.ready)
    unsafe BurstBlock.free(frames.pointee.pending)
    unsafe frames.deallocate()
    unsafe released.deallocate()
    if let pollable { netdev_close(pollable.descriptor) }
    while let block = idleBlock {
      idleBlock = unsafe block.pointee.next
      unsafe BurstBlock.free(block)
    }
  }
}

// MARK: - The turn

extension QueueTurn {
  /// Begins turning with the loop.
  func start() throws(LoopError) {
    releaseTimer = try loop.makeTimer { [weak self] in self?.releaseTimerFired() }
    submissionTimer = try loop.makeTimer { [weak self] in self?.submissionTimerFired() }
    bufferTimer = try loop.makeTimer { [weak self] in self?.bufferTimerFired() }
    refill()
    let context = unsafe Unmanaged.passUnretained(self).toOpaque()
    hook = try loop.addHook(
      unsafe TurnHook(
        stage: .driver, context: context,
        // The hook is removed before the turn goes.
        begin: { context in
          unsafe Unmanaged<QueueTurn>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.beginTurn() }
        },
        end: { context in
          unsafe Unmanaged<QueueTurn>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.endTurn() }
        }))
  }

  /// Ends what belongs to the loop.
  func leaveLoop() {
    if let hook { try? loop.removeHook(hook) }
    hook = nil
    for repetition in repetitions { repetition.cancel() }
    repetitions = []
    releaseTimer?.cancel()
    submissionTimer?.cancel()
    bufferTimer?.cancel()
  }

  /// Before the jobs: completions, then reception, each within its budget.
  private func beginTurn() {
    acceptedBefore = accepted
    receivedThisTurn = 0
    looks = 0
    isServedHere = driver.isServedHere
    sampler.isDue = sampler.cookie == 0
    if !takeReleased() { updateCredits() }
    takeFromOutside()
    nextTurn.openAll()
    if !consumers.isEmpty { serveConsumers() }
  }

  /// After the jobs: publish, refill, ring. True while there is something to poll for.
  private func endTurn() -> Bool {
    guard !isFinished else { return false }
    flush()
    // Who waits to send comes before what the ring can do without.
    if !bufferLine.isEmpty { updateCredits() }
    refill()
    driver.ring()
    statistics.driver = driver.statistics
    if pollable != nil { signalPollable() }
    if !watchers.isEmpty { tellOfFailures() }
    if active {
      active = false
      statistics.activeTurns &+= 1
      if statistics.copiedToChange >= copiesToTell { noteManyCopies() }
      if armed {
        armed = false
        driver.disarm()
      }
      if busyPoll > 0 { polledSince = loop.now }
      TurnHook.noteWork()
      return true
    }
    // What came in while somebody was waiting for room.
    if !mailbox.isEmpty, !submissionTimerRuns { return true }
    if busyPoll > 0, loop.now &- polledSince < busyPoll {
      // To look in vain is what was asked for.
      TurnHook.noteWork()
      return true
    }
    return arm() || wishForRoom() || giveUpIdle()
  }

  /// Nothing to do: asks for interrupts, and looks again. True when something had come meanwhile.
  private func arm() -> Bool {
    let received = wantsReceived
    if armed, armedForReceived || !received { return false }
    let released = releaseInterrupt()
    if driver.arm(received: received, released: released) { return true }
    armed = true
    armedForReceived = received
    if released == .most || isOverdue { boundReleases() }
    return false
  }

  /// Somebody would take a frame that comes in now. Frames that nobody fetches are no reason to look for more: the next look
  /// is when some have been fetched.
  private var wantsReceived: Bool { !consumers.isEmpty || (pollable != nil && readyCount == 0 && isOpen) }

  private func releaseInterrupt() -> ReleaseInterrupt {
    if unsafe frames.pointee.inFlight == 0 { return .never }
    if releaseWaiters > 0 || !senders.isEmpty || bufferLineLacksRoom || !watchers.isEmpty { return .next }
    if pollable != nil || isOverdue { return .next }
    return unsafe frames.pointee.inFlight >= 32 ? .most : .next
  }

  /// How long a released buffer may stay unreported because the interrupt waits for others.
  private static let releaseBound = Duration.milliseconds(2)

  /// Nobody waits for these, but a buffer must not stay unreported because its neighbours are held. As long as some are in
  /// flight the bound is renewed, at longer and longer intervals while nothing comes of it.
  private func boundReleases() {
    guard !releaseTimerRuns, unsafe frames.pointee.inFlight > 0 else { return }
    releaseTimerRuns = true
    releaseTimer?.schedule(after: overduePause)
  }

  private func releaseTimerFired() {
    releaseTimerRuns = false
    #if Testing
    if unsafe netdev_fault_is_planted("bound-not-renewed") { releaseTimerRuns = true }
    #endif
    guard unsafe frames.pointee.inFlight > 0 else { return }
    overduePause = isOverdue ? min(overduePause * 2, .milliseconds(128)) : Self.releaseBound
    isOverdue = true
    interestChanged()
  }

  /// Buffers have come back: those that stay may be reported with others again.
  func noteInTime() {
    isOverdue = false
    overduePause = Self.releaseBound
  }

  /// What the loop should wait for has changed: arm anew at the end of this turn.
  func interestChanged() {
    armed = false
    loop.requestTurn()
  }

  /// Frames wait for room in the ring, and perhaps somebody for them: no interrupt for releases is too soon. No turn follows for that.
  func noteLeftOver() { armed = false }

  func noteInterrupt() {
    armed = false
    isInterrupted = true
    loop.requestTurn()
  }

  func noteActivity() { active = true }

  /// The device had done something. Where it was not asked to say so, it was spared an interrupt.
  @inline(__always) func noteFound() {
    if !armed, !isInterrupted { statistics.interruptsSuppressed &+= 1 }
    isInterrupted = false
  }
}
