internal import CNetdevSystem
internal import Glibc

/// One thread with one event loop, as the serial executor of every actor that lives on it.
///
/// A job enqueued from the loop itself is a list operation; from elsewhere it is a push on an intrusive stack and, only
/// if the loop sleeps, one eventfd write. The loop ends when the last reference to this object goes: actors on it hold
/// one, so no job is ever left behind.
@safe public final class LoopExecutor: SerialExecutor {
  // Proof: the pointee is touched on the loop's thread only; it is freed after the thread has ended, or by the thread itself
  // as its last act.
  nonisolated(unsafe) let core: UnsafeMutablePointer<LoopCore>
  let inlet: LoopInlet
  private let thread: UInt64?
  /// The loop as a world turns it that has no thread for it.
  private let worldLoop: WorldLoop?
  /// The loop's name: its thread carries it, and logs.
  public let name: String

  /// Starts a loop on a thread of its own; in a simulated world, a loop that the world turns.
  ///
  /// - Parameters:
  ///   - name: the thread's name (15 bytes are kept by the kernel).
  ///   - cpu: the CPU to pin the thread to; nil leaves it to the scheduler.
  ///   - stallBound: jobs that hold a turn longer are counted and reported.
  ///   - reports: whom it tells of what goes wrong with it.
  /// - Throws: `LoopError` when the thread, its event base or its CPU cannot be had.
  public init(
    name: String, cpu: Int? = nil, stallBound: Duration = .milliseconds(100),
    reports: LoopReports = LoopReports()
  ) throws(LoopError) {
    if let cpu, cpu < 0 { throw LoopError(.system, "starting a thread on CPU \(cpu)", errno: EINVAL) }
    let world = LoopWorlds.current
    let backend: any LoopBackend = if let world { world.makeBackend(for: name) } else { try LibeventBackend() }
    let core = unsafe LoopCore.allocate(backend: backend, stallBound: stallBound, reports: reports)
    inlet = unsafe core.pointee.inlet.takeUnretainedValue()
    self.name = name
    if let world {
      let turned = unsafe WorldLoop(core, name: name)
      unsafe self.core = core
      thread = nil
      worldLoop = turned
      unsafe core.pointee.serial = UnownedSerialExecutor(ordinary: self)
      world.adopt(turned)
      return
    }
    var thread: UInt64 = 0
    let result = unsafe netdev_thread_start(
      &thread, name, CInt(clamping: cpu ?? -1),
      { context in
        guard let context = unsafe context else { return }
        unsafe LoopCore.run(context.assumingMemoryBound(to: LoopCore.self))
      }, core)
    guard result == 0 else {
      unsafe LoopCore.free(core)
      throw LoopError(.system, cpu.map { "starting a thread on CPU \($0)" } ?? "starting a thread", errno: -result)
    }
    unsafe self.core = core
    self.thread = thread
    worldLoop = nil
    // No job can arrive before this initialiser returns, and a job's arrival orders this write before its run.
    unsafe core.pointee.serial = UnownedSerialExecutor(ordinary: self)
  }

  /// A loop that the caller turns on its own thread with `turn`: for simulated backends and tests.
  public init(name: String, backend: any LoopBackend) {
    unsafe core = LoopCore.allocate(backend: backend, stallBound: .seconds(Int64.max), reports: LoopReports())
    inlet = unsafe core.pointee.inlet.takeUnretainedValue()
    thread = nil
    worldLoop = nil
    self.name = name
    unsafe core.pointee.serial = UnownedSerialExecutor(ordinary: self)
  }

  deinit {
    if let worldLoop { return worldLoop.end() }
    guard let thread else { return unsafe LoopCore.free(core) }
    if isOnLoop {
      // The last reference went in a job of this loop: the thread ends by itself after this turn.
      _ = netdev_thread_detach(thread)
      unsafe core.pointee.freesItself = true
      inlet.requestStop()
    } else {
      inlet.requestStop()
      _ = netdev_thread_join(thread)
      unsafe LoopCore.free(core)
    }
  }
}

// MARK: - Executor

extension LoopExecutor {
  /// Queues a job; from any thread.
  public func enqueue(_ job: consuming ExecutorJob) {
    enqueue(UnownedJob(job), tag: 0)
  }

  /// The tag is 0, or the address of the task executor that the job came through.
  func enqueue(_ job: UnownedJob, tag: UInt) {
    let address = JobLinks.address(of: job)
    JobLinks.setTag(address, tag)
    if isOnLoop { unsafe LoopCore.append(address, core) } else { inlet.push(address) }
  }

  /// The reference that actors on this loop return from `unownedExecutor`.
  public func asUnownedSerialExecutor() -> UnownedSerialExecutor {
    unsafe UnownedSerialExecutor(ordinary: self)
  }

  /// True on the loop's thread.
  public var isOnLoop: Bool { unsafe netdev_current_loop() == UnsafeMutableRawPointer(core) }

  /// Lets `assumeIsolated` and the runtime's checks recognise the loop's thread outside any job.
  public func isIsolatingCurrentContext() -> Bool? { isOnLoop }

  /// Traps when called off the loop, as the language requires of this check.
  public func checkIsolated() { precondition(isOnLoop, "not on the loop \(name)") }
}

// MARK: - On the loop

extension LoopExecutor {
  private func requireOnLoop(_ operation: String) throws(LoopError) {
    guard isOnLoop else { throw LoopError(.notOnLoop, operation) }
    // What a handler held, ended with its loop, may come to this.
    guard unsafe !core.pointee.events.isClosed else { throw LoopError(.system, operation, errno: ESHUTDOWN) }
  }

  /// Watches a descriptor; the source starts suspended. On the loop only.
  ///
  /// - Parameters:
  ///   - descriptor: stays the caller's, and open until the source has ended on its loop.
  ///   - readiness: what to watch for.
  ///   - owner: kept until then: what closes the descriptor as it goes. Without one the caller cancels the source on the loop and
  ///     closes afterwards.
  ///   - handler: called on the loop whenever the descriptor is ready.
  /// - Throws: `notOnLoop` elsewhere than on the loop; what the system refuses.
  public func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, keeping owner: AnyObject? = nil, handler: @escaping () -> Void
  ) throws(LoopError) -> LoopSource {
    try requireOnLoop("makeSource")
    let event = try unsafe core.pointee.backend.makeSource(descriptor: descriptor, readiness: readiness) {
      LoopCore.noteEvent()
      withExtendedLifetime(owner) { handler() }
    }
    return unsafe LoopSource(LoopEventHandle(event, core))
  }

  /// Watches an eventfd: what has been signalled is taken from it, and then the handler runs; the source starts suspended. On
  /// the loop only.
  ///
  /// A signal that was taken is work, also when it came so late that there is nothing left to do for it: it does not come
  /// again by itself, and a loop that is woken so is no loop that spins.
  ///
  /// - Parameters:
  ///   - descriptor: as for `makeSource(descriptor:readiness:keeping:handler:)`.
  ///   - owner: as there.
  ///   - handler: called on the loop whenever the eventfd has been signalled.
  /// - Throws: `notOnLoop` elsewhere than on the loop; what the system refuses.
  public func makeSource(
    eventfd descriptor: CInt, keeping owner: AnyObject? = nil, handler: @escaping () -> Void
  ) throws(LoopError) -> LoopSource {
    try makeSource(descriptor: descriptor, readiness: .readable, keeping: owner) {
      if netdev_eventfd_drain(descriptor) > 0 { TurnHook.noteWork() }
      handler()
    }
  }

  /// A one-shot timer, not yet scheduled. On the loop only.
  ///
  /// - Throws: `notOnLoop` elsewhere than on the loop; what the system refuses.
  public func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> LoopTimer {
    try requireOnLoop("makeTimer")
    let event = try unsafe core.pointee.backend.makeTimer {
      LoopCore.noteEvent()
      // A timer that fires is work: what it was set for.
      TurnHook.noteWork()
      handler()
    }
    return unsafe LoopTimer(LoopEventHandle(event, core))
  }

  /// Adds a hook, from the next turn on. On the loop only.
  ///
  /// - Throws: `notOnLoop` elsewhere than on the loop.
  public func addHook(_ hook: TurnHook) throws(LoopError) -> TurnHook.Token {
    try requireOnLoop("addHook")
    return unsafe core.pointee.addHook(hook)
  }

  /// Removes a hook: it is not called again, not even later in the present turn. On the loop only.
  ///
  /// - Throws: `notOnLoop` elsewhere than on the loop.
  public func removeHook(_ token: TurnHook.Token) throws(LoopError) {
    try requireOnLoop("removeHook")
    unsafe core.pointee.removeHook(token)
  }

  /// Runs the `end` of every device hook now, in the middle of a turn: a device of this loop serves what a driver has just
  /// rung for. On the loop only, not from a hook; elsewhere it does nothing.
  package func serveDevices() {
    guard isOnLoop else { return }
    unsafe LoopCore.serveDevices(core)
  }

  /// True on the loop when jobs are due there beside the one that runs.
  package var hasJobsDue: Bool {
    guard isOnLoop else { return false }
    return unsafe !core.pointee.jobs.isEmpty || inlet.hasJobs
  }

  /// Asks for another turn before the loop sleeps. On the loop only; elsewhere it does nothing.
  public func requestTurn() {
    guard isOnLoop else { return }
    unsafe core.pointee.turnRequested = true
  }

  /// Asks for a turn, from any thread; a sleeping loop wakes.
  public func wake() { inlet.requestTurn() }

  /// The loop's address as its thread knows it: equal to `netdev_current_loop()` there and nowhere else.
  package var identity: UInt { UInt(bitPattern: unsafe core) }

  /// The number of the present turn. On the loop only; 0 elsewhere.
  public var turn: UInt64 { isOnLoop ? unsafe core.pointee.turns : 0 }

  /// Nanoseconds of the loop's clock. On the loop only; 0 elsewhere.
  public var now: UInt64 {
    guard isOnLoop else { return 0 }
    // A loop with a thread has the system's clock: asked at once it costs no reference.
    return thread == nil ? unsafe core.pointee.backend.now : netdev_monotonic_nanoseconds()
  }

  /// The same from any thread: of a loop without a thread of its own, elsewhere than on it, when it turned last.
  var time: UInt64 {
    if isOnLoop { return unsafe core.pointee.backend.now }
    return thread == nil ? inlet.turnedAt : netdev_monotonic_nanoseconds()
  }

  /// What the loop has done so far, up to its last full turn. From any thread: the loop does not notice.
  public var statistics: LoopStatistics { inlet.statistics }
}

// MARK: - Turned by hand

extension LoopExecutor {
  /// One turn of a loop that has no thread of its own, on the caller's thread; a loop with a thread does nothing.
  ///
  /// - Returns: true when there is reason for another turn without waiting.
  @discardableResult public func turnOnce() -> Bool {
    guard thread == nil, worldLoop == nil else { return false }
    unsafe netdev_set_current_loop(core)
    defer { netdev_set_current_loop(nil) }
    inlet.noteTurn(at: unsafe core.pointee.backend.now)
    return unsafe LoopCore.turn(core)
  }
}
