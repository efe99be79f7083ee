internal import CNetdevSystem

/// The state of a loop and what one turn does. It lives behind one pointer and is touched on the loop's thread only; what
/// other threads bring comes through the inlet.
@safe struct LoopCore {
  /// Jobs run in one turn before hooks and the backend get theirs.
  static let jobBudget = 256
  /// A loop that does not sleep looks at its descriptors and timers once in so many turns.
  static let turnsBetweenPolls: UInt64 = 16

  let backend: any LoopBackend
  /// Retained until the core is freed; unmanaged, so that a turn does not count references.
  let inlet: Unmanaged<LoopInlet>
  /// Sources and timers of this loop.
  let events = LoopEvents()
  let stallBound: UInt64
  var jobs = JobList()
  var hooks: [(token: TurnHook.Token, hook: TurnHook)] = []
  var hooksChanged = false
  var activeHooks = unsafe UnsafeMutableBufferPointer<TurnHook>(start: nil, count: 0)
  /// Whose hook stands at each place of `activeHooks`.
  var activeTokens: [TurnHook.Token] = []
  var nextToken = 0
  var turns: UInt64 = 0
  var turnRequested = false
  /// Somebody has said that this turn does something.
  var worked = false
  /// Somebody has woken the loop from another thread since the last turn.
  var wasWoken = false
  var idleness = LoopIdleness()
  var freesItself = false
  /// What jobs run on; set before the first job can arrive.
  var serial: UnownedSerialExecutor?
  let reports: LoopReports

  init(backend: any LoopBackend, stallBound: UInt64, reports: LoopReports) {
    self.backend = backend
    self.stallBound = stallBound
    self.reports = reports
    unsafe inlet = .passRetained(LoopInlet(backend: backend))
  }

  static func allocate(
    backend: any LoopBackend, stallBound: Duration, reports: LoopReports
  ) -> UnsafeMutablePointer<LoopCore> {
    let core = UnsafeMutablePointer<LoopCore>.allocate(capacity: 1)
    unsafe core.initialize(
      to: LoopCore(backend: backend, stallBound: stallBound.nanosecondsRoundedUp, reports: reports))
    return unsafe core
  }

  /// The loop whose thread this is, if it is one's: what `run` has set for the thread, and nobody else does. It is freed when the
  /// loop has run, and touched by this thread only.
  private static var here: UnsafeMutablePointer<LoopCore>? {
    unsafe netdev_current_loop()?.assumingMemoryBound(to: LoopCore.self)
  }

  /// That of the loop whose thread this is, if it is one's.
  static var inletHere: LoopInlet? { unsafe here?.pointee.inlet.takeUnretainedValue() }

  // MARK: Turning

  // `Models/Sources/LibeventConcurrency/LoopModels.swift` has a copy of what `run`, `turn` and `sleep` do with the inlet: a change
  // of that order is made there too.

  /// Turns until stopped. The caller's thread is the loop's from here to the return.
  static func run(_ core: UnsafeMutablePointer<LoopCore>) {
    unsafe netdev_set_current_loop(core)
    let inlet = unsafe core.pointee.inlet
    while unsafe !inlet._withUnsafeGuaranteedRef({ $0.shallStop }) {
      if unsafe !turn(core) { unsafe sleep(core) }
    }
    unsafe close(core)
    netdev_set_current_loop(nil)
    if unsafe core.pointee.freesItself { unsafe free(core) }
  }

  /// Ends what belongs to the loop, on its thread: the events first, then the backend that they live in.
  private static func close(_ core: UnsafeMutablePointer<LoopCore>) {
    guard unsafe !core.pointee.events.isClosed else { return }
    unsafe core.pointee.inlet._withUnsafeGuaranteedRef { $0.close() }
    unsafe core.pointee.events.close()
    unsafe core.pointee.backend.close()
  }

  /// Ends the memory of a loop whose thread has ended or is ending, or that never had one.
  static func free(_ core: UnsafeMutablePointer<LoopCore>) {
    let present = unsafe netdev_current_loop()
    unsafe netdev_set_current_loop(core)
    unsafe close(core)
    unsafe netdev_set_current_loop(present == UnsafeMutableRawPointer(core) ? nil : present)
    unsafe core.pointee.inlet.release()
    unsafe core.pointee.activeHooks.deallocate()
    unsafe core.deinitialize(count: 1)
    unsafe core.deallocate()
  }

  /// One turn, with no more jobs than `budget`. True when there is reason for another without sleeping.
  static func turn(_ core: UnsafeMutablePointer<LoopCore>, jobs budget: Int = jobBudget) -> Bool {
    unsafe core.pointee.turns &+= 1
    if unsafe core.pointee.hooksChanged { unsafe core.pointee.rebuildHooks() }
    unsafe core.pointee.turnRequested = false
    let inlet = unsafe core.pointee.inlet
    let isRequested = unsafe inlet._withUnsafeGuaranteedRef { $0.beginTurn() }
    if isRequested { unsafe takeDiscarded(core) }
    let hooks = unsafe core.pointee.activeHooks
    for index in 0..<hooks.count { unsafe hooks[index].begin(hooks[index].context) }

    let started = netdev_coarse_nanoseconds()
    unsafe inlet._withUnsafeGuaranteedRef { unsafe $0.drain(into: &core.pointee.jobs) }
    var ran = isRequested ? unsafe inlet._withUnsafeGuaranteedRef { $0.makeCalls() } : 0
    while ran < budget, let job = unsafe core.pointee.jobs.popFirst() {
      unsafe run(job, core)
      ran += 1
    }
    unsafe inlet._withUnsafeGuaranteedRef { unsafe $0.countTurn(core.pointee.turns, jobs: ran) }
    if ran > 0 { unsafe core.pointee.noticeStall(since: started) }

    var busy = false
    for index in 0..<hooks.count where unsafe hooks[index].end(hooks[index].context) { busy = true }
    unsafe core.pointee.noteIdleness(jobs: ran, isRequested: isRequested, at: started)
    if unsafe core.pointee.turns % turnsBetweenPolls == 0 { unsafe core.pointee.backend.poll() }
    return unsafe busy || core.pointee.turnRequested || core.pointee.hooksChanged || !core.pointee.jobs.isEmpty
      || inlet._withUnsafeGuaranteedRef { $0.hasJobs }
  }

  /// The device hooks' `end`, between a turn's jobs; what they leave is served at the turn's own end.
  static func serveDevices(_ core: UnsafeMutablePointer<LoopCore>) {
    let hooks = unsafe core.pointee.activeHooks
    for index in 0..<hooks.count where unsafe hooks[index].stage == .device {
      if unsafe hooks[index].end(hooks[index].context) { unsafe core.pointee.turnRequested = true }
    }
  }

  private static func run(_ address: UInt, _ core: UnsafeMutablePointer<LoopCore>) {
    let job = JobLinks.job(at: address)
    if let executor = unsafe UnsafeRawPointer(bitPattern: JobLinks.tag(address)) {
      // The tag is the task executor that enqueued the job; its task keeps it alive.
      let task = unsafe Unmanaged<LoopTaskExecutor>.fromOpaque(executor).takeUnretainedValue()
      unsafe job.runSynchronously(on: task.asUnownedTaskExecutor())
    } else if let serial = unsafe core.pointee.serial {
      unsafe job.runSynchronously(on: serial)
    }
  }

  /// Sleeps until something happens.
  private static func sleep(_ core: UnsafeMutablePointer<LoopCore>) {
    let inlet = unsafe core.pointee.inlet
    guard unsafe inlet._withUnsafeGuaranteedRef({ $0.beginSleep() }) else { return }
    unsafe noteSleep(core)
    unsafe core.pointee.backend.wait()
    unsafe inlet._withUnsafeGuaranteedRef { $0.endSleep() }
  }

  /// Counts a sleep that begins, and tells what the system has refused for the first time.
  static func noteSleep(_ core: UnsafeMutablePointer<LoopCore>) {
    // By the pointer, as all that is called again and again: a method that changes nothing works on a copy of the core.
    let (watches, timers) = unsafe (core.pointee.backend.refusedWatches, core.pointee.backend.refusedTimers)
    let inlet = unsafe core.pointee.inlet
    let shortages = unsafe inlet._withUnsafeGuaranteedRef {
      $0.countSleep(refusedWatches: watches, refusedTimers: timers)
    }
    for shortage in shortages { unsafe core.pointee.reports.onShortage?(shortage) }
  }

  private mutating func noticeStall(since started: UInt64) {
    let elapsed = netdev_coarse_nanoseconds() &- started
    guard elapsed > stallBound else { return }
    unsafe inlet._withUnsafeGuaranteedRef { $0.countStall() }
    reports.onStall?(.nanoseconds(Int64(clamping: elapsed)))
  }

  /// A turn without jobs in which nobody said that he did something. Whoever wakes the loop for a job may do so when it has just
  /// woken by itself, and that turn has done the job: the next sleep ends at once, for nothing, and is still no spin.
  private mutating func noteIdleness(jobs ran: Int, isRequested: Bool, at now: UInt64) {
    let isLate = wasWoken && !isRequested
    let isIdle = ran == 0 && !worked && !isLate
    worked = false
    wasWoken = false
    guard idleness.note(isIdle: isIdle, at: now) else { return }
    unsafe inlet._withUnsafeGuaranteedRef { $0.countIdleTurn() }
    if let onSpin = reports.onSpin, let turns = idleness.report(at: now) { onSpin(turns) }
  }

  /// Events whose handles went on other threads.
  private static func takeDiscarded(_ core: UnsafeMutablePointer<LoopCore>) {
    let inlet = unsafe core.pointee.inlet
    for number in unsafe inlet._withUnsafeGuaranteedRef({ $0.takeDiscarded() }) {
      unsafe core.pointee.events.cancel(number)
    }
  }

  /// A source or a timer of this thread's loop fires: a turn comes after it, so that the hooks see what its handler left to
  /// them, also when it fires at the very end of a turn.
  static func noteEvent() { unsafe here?.pointee.turnRequested = true }

  /// This thread's loop has taken the signal that wakes it.
  static func noteWakeUp() { unsafe here?.pointee.wasWoken = true }

  // MARK: Jobs

  /// On the loop: a job of its own.
  static func append(_ address: UInt, _ core: UnsafeMutablePointer<LoopCore>) {
    unsafe core.pointee.jobs.append(address)
  }

  /// On a loop: a job that was parked here is due on it. False elsewhere.
  static func letGo(_ address: UInt) -> Bool {
    guard let core = unsafe here else { return false }
    JobLinks.setTag(address, 0)
    unsafe core.pointee.jobs.append(address)
    return true
  }

  // MARK: Hooks

  mutating func addHook(_ hook: TurnHook) -> TurnHook.Token {
    nextToken += 1
    let token = TurnHook.Token(value: nextToken)
    hooks.append((token, hook))
    hooksChanged = true
    return token
  }

  mutating func removeHook(_ token: TurnHook.Token) {
    hooks.removeAll { $0.token == token }
    hooksChanged = true
    // The present turn may be walking the list: a silent hook takes the place, so the context may go at once.
    guard let index = activeTokens.firstIndex(of: token) else { return }
    unsafe activeHooks[index] = TurnHook.silent
  }

  /// Between turns only, so that a hook may add or remove hooks while the list is being walked.
  private mutating func rebuildHooks() {
    unsafe activeHooks.deallocate()
    let ordered = hooks.filter { $0.hook.stage == .driver } + hooks.filter { $0.hook.stage == .device }
    activeTokens = ordered.map { $0.token }
    unsafe activeHooks = .allocate(capacity: ordered.count)
    _ = unsafe activeHooks.initialize(from: ordered.map { $0.hook })
    hooksChanged = false
  }
}
