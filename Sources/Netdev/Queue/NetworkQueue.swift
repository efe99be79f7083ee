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

  /// Where packets wait that were submitted elsewhere than on the loop.
  nonisolated let inlet: QueueInlet
  /// What the queue counts.
  nonisolated let counters = QueueCounters()
  /// The loop as its thread knows it; fast paths compare.
  @usableFromInline nonisolated let loopIdentity: UInt
  // Proof: set once; what it points to belongs to the owner of each slot, and lives as long as the pool.
  @usableFromInline nonisolated(unsafe) let records: UnsafeMutablePointer<SlotRecord>
  // Proof: touched on the loop's thread only, as the actor's isolated state is; it lives as long as the actor.
  @usableFromInline nonisolated(unsafe) let state: UnsafeMutablePointer<QueueState>
  // Proof: set once, on the loop, before anything else happens there; read on the loop.
  nonisolated(unsafe) private(set) var core: QueueCore?
  // Proof: touched on the loop only; keeps the actor alive from its start until it is closed and every burst is back.
  nonisolated(unsafe) private var selfReference: NetworkQueue?

  /// The queue's loop.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(index: Int, loop: LoopExecutor, pool: PacketPool, maximumFrameLength: Int) {
    self.index = index
    self.loop = loop
    self.pool = pool
    self.maximumFrameLength = maximumFrameLength
    loopIdentity = loop.identity
    inlet = QueueInlet(loop: loop, pool: pool, maximumFrame: maximumFrameLength)
    unsafe records = pool.records
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: QueueState(pool: pool, maximumFrame: maximumFrameLength))
  }

  deinit {
    unsafe BurstBlock.free(state.pointee.ready)
    unsafe BurstBlock.free(state.pointee.pending)
    unsafe state.deallocate()
    counters.free()
  }

  /// True when the caller is on the queue's loop.
  @inlinable nonisolated var isHere: Bool { QueueState.isHere(loopIdentity) }
}

// MARK: - Life

extension NetworkQueue {
  /// Makes the driver's part and joins the loop.
  func prepare(
    driver: any NetworkDriver, busyPoll: Duration, tell: @escaping @Sendable (QueueNotice) -> Void,
    onBroken: @escaping @Sendable (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) {
    let part = try driver.makeQueue(index: index, loop: loop, slots: SlotTable(pool), signal: QueueSignal(self))
    let core = unsafe QueueCore(
      queue: self, driver: part, state: state, loop: loop, pool: pool, busyPoll: busyPoll, tell: tell,
      onBroken: onBroken)
    unsafe self.core = core
    unsafe state.pointee.core = Unmanaged.passUnretained(core)
    unsafe selfReference = self
    do {
      try core.start()
    } catch {
      throw NetworkDeviceError(.system, "joining the loop \(loop.name)", offered: "\(error)")
    }
  }

  /// Takes no more work; who waits without a published frame goes on at once.
  ///
  /// - Returns: why the queue ends: `cause`, unless it broke before.
  func stopAccepting(_ cause: NetworkDeviceError) -> NetworkDeviceError {
    guard let core = unsafe core else { return cause }
    core.stopAccepting(cause)
    return core.end ?? cause
  }

  /// The device is quiet (`confirmed`), or is not known to be: ends everything that waits.
  func finish(_ cause: NetworkDeviceError, confirmed: Bool) {
    guard let core = unsafe core else { return }
    if confirmed { core.finish(cause) } else { core.quarantine(cause) }
    releaseSelfIfDone()
  }

  nonisolated func noteInterrupt() { unsafe core?.noteInterrupt() }

  nonisolated func breakQueue(_ error: NetworkDeviceError) { unsafe core?.breakQueue(error) }

  /// On the loop: a burst came back, or the queue is closed.
  nonisolated func releaseSelfIfDone() {
    guard let core = unsafe core, core.isFinished, core.blocksOut == 0 else { return }
    unsafe selfReference = nil
  }

  /// Runs code on the queue's loop: what a child task (`addTask`, `async let`), which leaves the loop, does to come back.
  ///
  /// Deadline: none; it comes to its turn when what the loop is doing is done, and also when the queue has ended. Cancellation
  /// is the body's to heed: it runs in any case.
  public func run<Result: Sendable, Failure: Error>(
    _ body: @Sendable (isolated NetworkQueue) async throws(Failure) -> Result
  ) async throws(Failure) -> Result {
    unsafe core?.takeFromOutside()
    return try await body(self)
  }

  /// Waits until the queue is closed, however long that takes, or the task is cancelled.
  ///
  /// - Throws: the cause, when the queue broke, and `cancelled`, which ends the wait alone; returns when the device was closed
  ///   by the program.
  public func closed() async throws(NetworkDeviceError) {
    guard let core = unsafe core else { return }
    if !core.isFinished {
      let waiter = core.waiters.take(.closing)
      core.closers.append(waiter)
      if case .failed = await wait(waiter, core) {
        throw NetworkDeviceError(.cancelled, "closed", offered: "the task was cancelled while it waited for the end")
      }
    }
    if let cause = core.end, cause.code != .closed { throw cause }
  }
}
