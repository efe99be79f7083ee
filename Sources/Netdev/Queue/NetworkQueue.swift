public import LibeventConcurrency

/// One queue pair of a network device: an actor pinned to one event loop, which is one thread on one CPU.
///
/// ```swift
/// for await packet in queue.packets {
///   try await queue.send(packet)   // returns when the device has released the buffer
/// }
/// ```
///
/// Code that runs on the queue (`NetworkDevice.run`'s body) pays for no hop, lock or allocation a packet. Every operation
/// also works from anywhere else, at the price of a hop.
@safe public final actor NetworkQueue {
  /// Position of the pair in its device, from 0.
  public nonisolated let index: Int
  /// The loop that the queue lives on.
  public nonisolated let loop: LoopExecutor
  /// The pool that its frames lie in.
  public nonisolated let pool: PacketPool
  /// Longest frame in bytes that can be sent, and is received, if it has no VLAN tags; with tags it may be longer by four
  /// bytes each, up to two: ``canSend(_:)``.
  public nonisolated let maximumFrameLength: Int

  /// What code outside the queue's loop leaves for it.
  nonisolated let mailbox: QueueMailbox
  /// What the queue counts.
  nonisolated let counters: QueueCounters
  /// The loop as its thread knows it; fast paths compare.
  @usableFromInline nonisolated let loopIdentity: UInt
  // Proof: set once; what it points to belongs to the owner of each slot, and lives as long as the pool.
  @usableFromInline nonisolated(unsafe) let records: UnsafeMutablePointer<SlotRecord>
  // Proof: touched on the loop's thread only, as the actor's isolated state is; the turn keeps it, and the actor the turn.
  @usableFromInline nonisolated(unsafe) let frames: UnsafeMutablePointer<QueueFrames>
  /// Where tasks wait for the release of one frame.
  @usableFromInline nonisolated let sends: GateRow
  /// What the queue does on its loop.
  let turn: QueueTurn
  // Proof: touched on the loop only; keeps the actor alive from its start until it is closed and every burst is back.
  nonisolated(unsafe) private var selfReference: NetworkQueue?

  /// The queue's loop.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// On the loop: the queue of a driver's part, which turns with the loop from `start` on.
  ///
  /// - Parameter signals: where the part's signals go, which is here from now on.
  init(
    _ part: any QueueDriver, signals: SignalTarget, index: Int, loop: LoopExecutor, pool: PacketPool,
    maximumFrameLength: Int, busyPoll: Duration, tell: @escaping @Sendable (QueueNotice) -> Void,
    onBroken: @escaping @Sendable (NetworkDeviceError) -> Void
  ) {
    self.index = index
    self.loop = loop
    self.pool = pool
    self.maximumFrameLength = maximumFrameLength
    loopIdentity = loop.identity
    mailbox = QueueMailbox(loop: loop, pool: pool, maximumFrame: maximumFrameLength)
    counters = QueueCounters()
    unsafe records = pool.records
    let turn = QueueTurn(
      part, signals: signals, mailbox: mailbox, counters: counters, loop: loop, pool: pool,
      maximumFrame: maximumFrameLength, busyPoll: busyPoll, tell: tell, onBroken: onBroken)
    self.turn = turn
    sends = turn.sends
    unsafe frames = turn.frames
  }

  deinit { counters.free() }

  /// True when the caller is on the queue's loop.
  @inlinable nonisolated var isHere: Bool { QueueFrames.isHere(loopIdentity) }
}

// MARK: - Life

extension NetworkQueue {
  /// On the loop: begins turning with it.
  nonisolated func start() throws(NetworkDeviceError) {
    unsafe selfReference = self
    unsafe frames.pointee.withTurn { unsafe $0.owner = .passUnretained(self) }
    let refusal = unsafe frames.pointee.withTurn { turn -> LoopError? in
      do throws(LoopError) { try turn.start() } catch { return error }
      return nil
    }
    if let refusal {
      throw NetworkDeviceError(.system, "joining the loop \(loop.name)", offered: "\(refusal)")
    }
  }

  /// Takes no more work; who waits without a published frame goes on at once.
  ///
  /// - Returns: why the queue ends: `cause`, unless it broke before.
  func stopAccepting(_ cause: NetworkDeviceError) -> NetworkDeviceError {
    turn.stopAccepting(cause)
    return turn.end ?? cause
  }

  /// The device is quiet (`confirmed`), or is not known to be: ends everything that waits.
  func finish(_ cause: NetworkDeviceError, confirmed: Bool) {
    if confirmed { turn.finish(cause) } else { turn.quarantine(cause) }
    if turn.isDone { releaseSelf() }
  }

  /// On the loop, when the queue is closed and every burst is back.
  nonisolated func releaseSelf() { unsafe selfReference = nil }

  /// Runs code on the queue's loop: what a child task (`addTask`, `async let`), which leaves the loop, does to come back.
  ///
  /// Deadline: none; it comes to its turn when what the loop is doing is done, and also when the queue has ended. Cancellation
  /// is the body's to heed: it runs in any case.
  public func run<Result: Sendable, Failure: Error>(
    _ body: @Sendable (isolated NetworkQueue) async throws(Failure) -> Result
  ) async throws(Failure) -> Result {
    turn.takeFromOutside()
    return try await body(self)
  }

  /// Waits until the queue is closed, however long that takes, or the task is cancelled.
  ///
  /// - Throws: the cause, when the queue broke, and `cancelled`, which ends the wait alone; returns when the device was closed
  ///   by the program.
  public func closed() async throws(NetworkDeviceError) {
    if !turn.isFinished {
      let waiter = turn.waiters.take(.closing)
      turn.closers.append(waiter)
      if case .failed = await wait(waiter) {
        throw NetworkDeviceError(.cancelled, "closed", offered: "the task was cancelled while it waited for the end")
      }
    }
    if let cause = turn.end, cause.code != .closed { throw cause }
  }
}
