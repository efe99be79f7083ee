internal import CNetdevSystem
internal import CSimulation
internal import LibeventConcurrency
internal import Synchronization
internal import Virtio

/// The heart of a world: everything that could go on, and the seed that says what does.
///
/// One thread. A *step* is one job of the runtime's pool, one turn of a loop, one waking up, a wake-up that reaches its loop, or
/// nothing but time that passes. A turn can be held up in its middle (`hold`), where other steps are made before it goes on: a
/// loop's thread can always be slower than its neighbours. As many are held up at a time as `Simulation.Limits.depth` says. The way
/// into a loop's sleep and out of it can be broken into two steps; and in some seeds loops that sleep are woken for nothing, as any
/// platform may.
final class WorldSchedule: LoopWorld, @unchecked Sendable {
  // Proof of Sendable: everything is touched on the world's thread, except `arrivals`, a lock's, and `thread`, a constant.

  /// A job of the pool, a call that was handed to Dispatch, or one that may block.
  @safe private enum Work {
    case job(UnsafeMutableRawPointer)
    case call(@convention(c) (UnsafeMutableRawPointer?) -> Void, UnsafeMutableRawPointer?)
    case blocking(@Sendable () -> Void)
  }

  private struct Delayed {
    let time: UInt64
    let order: UInt64
    let work: Work
  }

  private struct Turned {
    let loop: WorldLoop
    let backend: SimulatedBackend
    let idleness = Idleness()
  }

  /// Turns of one loop, one after the other, in which nothing was done.
  private final class Idleness {
    /// What the loop had counted after its last turn: turns, and those in which it did nothing.
    var turns: UInt64 = 0
    var counted: UInt64 = 0
    var inARow = 0
    /// The world has woken it for nothing: its next turn need do nothing.
    var isExcused = false
  }

  /// What other threads have brought, which is a fault of the program's.
  struct Arrivals {
    /// Addresses of jobs.
    var jobs: [UInt] = []
    var escapes: [String] = []
    /// Nobody takes them any more.
    var isOver = false
    /// Tasks that have been in this world.
    var tasks: Set<UInt64> = []
  }

  var random: SeededRandom
  private(set) var now: UInt64 = 1_000_000_000
  private(set) var steps: UInt64 = 0
  private(set) var trace: SimulationTrace
  private(set) var findings: [String] = []
  let arrivals = Mutex(Arrivals())
  /// Watches the rings of virtio-net in this world. Behind a lock, as a driver may go on any thread.
  private let rings = Mutex(RingMonitor())
  let seed: UInt64
  let limits: Simulation.Limits
  private var orders: UInt64 = 0
  private var pool: [Work] = []
  private var delayed: [Delayed] = []
  private var loops: [Turned] = []
  private var made: [SimulatedBackend] = []
  private var numbers: [UInt64: Int] = [:]
  private var depth = 0
  /// Those who wait for what passes through the world's kernel.
  private var listeners: [SimulatedBell] = []
  /// Steps since time passed that was waited for.
  private var stepsInPlace = 0
  private(set) var isEnded = false

  /// A loop is woken for nothing at one step in so many; 0 for never, as in most seeds: what was not woken when it should have been
  /// would be helped by that.
  private let strayRate: Int

  let incidents = WorldIncidents()
  let faults = SimulatedFaults()
  let disturbances: Simulation.Disturbances

  init(seed: UInt64, limits: Simulation.Limits, disturbances: Simulation.Disturbances) {
    self.seed = seed
    random = SeededRandom(seed: seed)
    strayRate = random.oneIn(4) ? 20 << random.below(5) : 0
    self.limits = limits
    self.disturbances = disturbances
    trace = SimulationTrace(limit: limits.traceLines)
  }

  /// Nothing has happened that a program may suffer from.
  var isCalm: Bool { faults.count == 0 && !incidents.hasHarmed }

  func note(_ event: SimulationTrace.Event) { trace.note(event, at: now, step: steps) }

  func nextOrder() -> UInt64 {
    orders += 1
    return orders
  }

  /// Rings whenever something has passed through the world's kernel.
  func listen(_ bell: SimulatedBell) { listeners.append(bell) }

  func noteNews() { for bell in listeners { bell.ring() } }

  /// Says what is wrong; the first word counts most.
  func find(_ text: String) {
    note(.note("FOUND: \(text)"))
    if findings.count < 20 { findings.append(text) }
  }
}

// MARK: - What a world has not

extension WorldSchedule {
  /// The program itself has called one of Dispatch's functions: what it asked for is done outside of the world.
  func noteDispatch(_ function: String) {
    find("the program used Dispatch: \(function); a world has none: use tasks and Task.sleep")
  }

  /// The program, or the library for it, has asked for something of the kernel that only the machine's has.
  func noteLack(of what: String) { find("a world has no \(what)") }

  /// What is waited for when nothing can go on.
  private var endlessWait: String {
    let times = loops.compactMap { $0.backend.earliest } + delayed.map { $0.time }
    guard let first = times.min() else { return "a wait for ever: nothing is to be done, and no timer is set" }
    let day: UInt64 = 24 * 3600 * 1_000_000_000
    return first == .max
      ? "a wait for ever: nothing is to be done, but to sleep without an end"
      : "a wait for ever: nothing is to be done for \((first - min(first, now)) / day) days, and longer than "
        + "\(limits.nanoseconds / day) days nobody waits (Simulation.Limits.nanoseconds)"
  }
}

// MARK: - What comes in

extension WorldSchedule {
  func makeBackend(for name: String) -> any LoopBackend {
    let backend = SimulatedBackend(world: self, number: trace.add(loop: name))
    made.append(backend)
    return backend
  }

  func adopt(_ loop: WorldLoop) {
    guard let backend = made.popLast() else { return }
    backend.loop = loop
    loops.append(Turned(loop: loop, backend: backend))
  }

  /// A call that may block, from this thread. After the end nobody makes steps: then it is made here.
  func start(_ call: @escaping @Sendable () -> Void) {
    guard !isEnded else { return call() }
    pool.append(.blocking(call))
  }

  /// A job for the pool, from this thread.
  func enqueue(_ job: UnsafeMutableRawPointer) {
    _ = unsafe see(job)
    unsafe pool.append(.job(job))
  }

  /// Work for Dispatch, from this thread.
  func call(
    after delay: UInt64, _ body: @escaping @convention(c) (UnsafeMutableRawPointer?) -> Void,
    _ argument: UnsafeMutableRawPointer?
  ) {
    let work = unsafe Work.call(body, argument)
    guard delay > 0 else { return pool.append(work) }
    let (sum, overflow) = now.addingReportingOverflow(delay)
    delayed.append(Delayed(time: overflow ? .max : sum, order: nextOrder(), work: work))
  }

  /// The number that a job's task has in this world; 0 without a task.
  private func see(_ job: UnsafeMutableRawPointer) -> Int {
    let identity = unsafe simulation_task(job)
    guard identity != 0 else { return 0 }
    if let known = numbers[identity] { return known }
    numbers[identity] = numbers.count + 1
    arrivals.withLock { _ = $0.tasks.insert(identity) }
    return numbers.count
  }

  /// From any thread: a loop of this world was woken. True when that may reach it later, as the seed says: whoever wakes a loop has
  /// left something for it before, and the loop may have woken by itself and found that meanwhile.
  func noteWake(of loop: Int) -> Bool {
    guard SimulationThread.current !== self else { return !isEnded && random.oneIn(3) }
    let thread = SimulationThread.description
    arrivals.withLock { $0.escapes.append("\(thread) woke loop \(loop) of the world") }
    return false
  }

  /// From another thread: takes a job that is this world's.
  func take(stranger job: UnsafeMutableRawPointer) -> Bool {
    let identity = unsafe simulation_task(job)
    guard identity != 0 else { return false }
    let thread = SimulationThread.description
    return arrivals.withLock { arrivals in
      guard arrivals.tasks.contains(identity) else { return false }
      arrivals.jobs.append(UInt(bitPattern: job))
      arrivals.escapes.append("\(thread) resumed a task of the world")
      return true
    }
  }

  /// From another thread, or after the end: what somebody found.
  func find(stranger text: String) {
    let thread = SimulationThread.description
    let isOver = arrivals.withLock { arrivals in
      if !arrivals.isOver { arrivals.escapes.append("\(thread) says: \(text)") }
      return arrivals.isOver
    }
    if isOver { unsafe simulation_tell(seed, "is over, and \(thread) says: \(text)") }
  }

  /// From any thread: somebody does what only tasks of this world do. False where that is not this world's thread, which is an escape.
  func expectHere(_ use: String) -> Bool {
    if SimulationThread.current === self { return true }
    let thread = SimulationThread.description
    arrivals.withLock { if !$0.isOver { $0.escapes.append("\(thread) \(use)") } }
    return false
  }

  private func takeArrivals() {
    let (jobs, escapes) = arrivals.withLock { arrivals in
      let taken = (arrivals.jobs, arrivals.escapes)
      arrivals.jobs = []
      arrivals.escapes = []
      return taken
    }
    for address in jobs {
      guard let job = unsafe UnsafeMutableRawPointer(bitPattern: address) else { continue }
      let task = unsafe see(job)
      find("task \(task) escaped")
      unsafe pool.append(.job(job))
    }
    for escape in escapes { find("an escape: \(escape)") }
  }
}

// MARK: - Steps

extension WorldSchedule {
  /// Steps until `isOver` says so and nothing more could happen, or until something is found.
  func run(until isOver: () -> Bool) {
    while findings.isEmpty {
      takeArrivals()
      guard steps < limits.steps else { return find("no end after \(steps) steps") }
      if stepsInPlace > limits.stepsInPlace {
        return find("\(stepsInPlace) steps in which no time passed that anybody waited for")
      }
      if step() { continue }
      if isOver() { return }
      // Nothing to do, and nothing to wait for: unless somebody outside of this world is to bring it.
      guard waitForArrivals() else { return find(endlessWait) }
    }
  }

  private var awake: [Turned] {
    loops.filter { !$0.loop.isTurning && (!$0.loop.isAsleep || $0.backend.hasReason) }
  }

  /// Loops that somebody has woken, whom that has not reached yet.
  private var unreached: [Turned] { loops.filter { $0.backend.isWakeUnderWay } }

  /// A loop that sleeps, and that the seed wakes without any reason.
  private func chooseSleeper() -> Turned? {
    guard strayRate > 0, random.oneIn(strayRate) else { return nil }
    let sleeping = loops.filter { !$0.loop.isTurning && $0.loop.isAsleep && !$0.backend.hasReason }
    return sleeping.isEmpty ? nil : sleeping[random.below(sleeping.count)]
  }

  /// One thing that can happen; false when there is none.
  private func step() -> Bool {
    let (awake, unreached) = (awake, unreached)
    let choices = pool.count + awake.count + unreached.count
    // Who is held up is so for a while, and not until somebody's time-out is over.
    if choices == 0 { return depth == 0 && passTime() }
    beginStep()
    stepsInPlace += 1
    now += 100 + random.next() % 2000
    // A machine that is busy elsewhere.
    if random.oneIn(64) { now += random.next() % 2_000_000 }
    fireDelayed()
    haveIncidents()
    if let sleeper = chooseSleeper() {
      sleeper.idleness.isExcused = true
      turn(sleeper, isVain: true)
      return true
    }
    let choice = random.below(choices)
    if choice < pool.count {
      runFromPool(choice)
    } else if choice - pool.count < awake.count {
      turn(awake[choice - pool.count])
    } else {
      let backend = unreached[choice - pool.count - awake.count].backend
      note(.reached(loop: backend.number))
      backend.reach()
    }
    return true
  }

  private func beginStep() {
    steps += 1
    simulation_watch_step(steps)
  }

  private func haveIncidents() {
    while let (name, action) = incidents.next(at: steps) {
      note(.note(name))
      LoopWorlds.outsideLoops(action)
    }
  }

  /// A call of the library's that its seam asks about.
  func choose(_ call: UnsafePointer<CChar>?, cuts: Bool) -> CInt {
    let error = unsafe faults.choose(call, cuts: cuts, &random)
    if error != 0, let call = unsafe call {
      note(.note("\(unsafe String(cString: call)) is \(cuts ? "cut short" : "refused with \(ErrorNumber(error))")"))
    }
    return error
  }

  /// Nothing can go on now: goes to the next time at which something can.
  private func passTime() -> Bool {
    let next = (loops.compactMap { $0.backend.earliest } + delayed.map { $0.time }).min()
    guard let next, next != .max, next - min(next, now) < limits.nanoseconds else { return false }
    beginStep()
    stepsInPlace = 0
    for turned in loops { turned.idleness.inARow = 0 }
    now = max(now, next) + random.next() % 1000
    fireDelayed()
    return true
  }

  private func fireDelayed() {
    while let first = delayed.indices.min(by: {
      (delayed[$0].time, delayed[$0].order) < (delayed[$1].time, delayed[$1].order)
    }),
      delayed[first].time <= now
    {
      pool.append(delayed.remove(at: first).work)
      // Somebody has waited for this time.
      stepsInPlace = 0
    }
  }

  private func runFromPool(_ place: Int) {
    let work = pool.remove(at: place)
    LoopWorlds.outsideLoops {
      switch work {
      case .job(let job):
        note(.job(task: unsafe see(job)))
        unsafe simulation_run(job)
      case .call(let body, let argument):
        note(.job(task: 0))
        unsafe body(argument)
      case .blocking(let call):
        note(.job(task: 0))
        call()
      }
    }
  }

  private func turn(_ turned: Turned, isVain: Bool = false) {
    let budget = [1, 1, 2, 4, 256][random.below(5)]
    let number = turned.backend.number
    let turns = turned.loop.statistics.turns
    switch turned.loop.step(jobs: budget, isBroken: random.oneIn(4)) {
    case .turned: note(.turned(loop: number, budget: budget))
    case .hesitated: note(.hesitated(loop: number, budget: budget))
    case .slept: note(.slept(loop: number, budget: turned.loop.statistics.turns > turns ? budget : 0))
    case .stayed: note(.stayed(loop: number))
    case .woke: note(.woke(loop: number, isVain: isVain))
    case .stirred: note(.stirred(loop: number, isVain: isVain))
    case .ended: note(.ended(loop: number))
    }
    noteIdleness(of: turned)
    loops.removeAll { !$0.loop.isLive }
    // In the middle of another turn its own end is still to come.
    findBroken(depth == 0 ? rings.withLock { $0.endTurn() } : rings.withLock { $0.look() })
  }

  /// After a turn: a loop that turns on and on, or is woken again and again, and does nothing is one that spins.
  private func noteIdleness(of turned: Turned) {
    let (idleness, statistics) = (turned.idleness, turned.loop.statistics)
    guard statistics.turns > idleness.turns else { return }
    let isIdle = statistics.idleTurns > idleness.counted
    idleness.turns = statistics.turns
    idleness.counted = statistics.idleTurns
    if idleness.isExcused {
      idleness.isExcused = false
      return
    }
    idleness.inARow = isIdle ? idleness.inARow + 1 : 0
    guard idleness.inARow > limits.idleTurns else { return }
    find("the loop '\(turned.loop.name)' spins: \(idleness.inARow) turns one after the other in which it did nothing")
  }

  /// In the middle of a turn or a job: the seed may let others go on first.
  func hold() {
    findBroken(rings.withLock { $0.look() })
    guard depth < limits.depth, random.oneIn(8) else { return }
    depth += 1
    note(.held)
    for _ in 0...random.below(6) where findings.isEmpty { _ = step() }
    depth -= 1
  }

  /// Real time, for what another thread may bring; false when nobody brings anything.
  private func waitForArrivals() -> Bool {
    simulation_watch_rest(true)
    defer { simulation_watch_rest(false) }
    for _ in 0..<max(0, limits.arrivalMilliseconds) {
      if arrivals.withLock({ !$0.jobs.isEmpty || !$0.escapes.isEmpty }) { return true }
      simulation_pause(1)
    }
    return false
  }
}

// MARK: - Rings

extension WorldSchedule {
  private func findBroken(_ violations: [RingViolation]) {
    for violation in violations { find("\(violation)") }
  }

  #if Testing
  /// Something has happened to a ring, on the world's thread; that it is gone is heard from any.
  func hear(_ event: RingEvent) {
    switch event {
    case .laid(let ring): rings.withLock { $0.watch(MonitoredRing(ring)) }
    case .gone(let identity): rings.withLock { $0.forget(identity) }
    case .offered(let identity): findBroken(rings.withLock { $0.noteOffer(identity) })
    case .kick(let identity, let rang): findBroken(rings.withLock { $0.noteKick(identity, rang: rang) })
    case .call(let identity, let rang): findBroken(rings.withLock { $0.noteCall(identity, rang: rang) })
    case .taking(let identity): findBroken(rings.withLock { $0.noteTaking(identity) })
    }
  }
  #endif
}

// MARK: - The end

extension WorldSchedule {
  /// What is still there when nothing goes on any more.
  func findLeftovers() {
    loops.removeAll { !$0.loop.isLive }
    for turned in loops {
      find(
        "the loop '\(turned.loop.name)' is still held at the end, \(turned.backend.timersSet) timers set: "
          + "close its device, or end the task that holds it")
    }
    let sleeping = wakeSleepers()
    if sleeping > 0 { find("\(sleeping) tasks still sleep at the end: cancel them, and wait for them") }
  }

  /// After everything else: descriptors that were opened in this world, and that nobody has closed.
  func findOpenDescriptors() {
    var kind = [CChar](repeating: 0, count: 128)
    var kinds: [String] = []
    var next: CInt = 0
    while true {
      let found = unsafe kind.withUnsafeMutableBufferPointer {
        unsafe simulation_descriptor_left(next, $0.baseAddress, $0.count)
      }
      guard found >= 0 else { break }
      kinds.append(String(decoding: kind.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
      next = found + 1
    }
    if !kinds.isEmpty { find("\(kinds.count) descriptors are left open: \(kinds.sorted().joined(separator: " "))") }
  }

  /// Ends the sleeps that are longer than a world lasts, and counts those that somebody sleeps: of a cancelled one nothing comes.
  private func wakeSleepers() -> Int {
    var count = 0
    for sleep in delayed {
      let before = pool.count + awake.count + unreached.count
      guard case .call(let body, let argument) = sleep.work else { continue }
      LoopWorlds.outsideLoops { unsafe body(argument) }
      if pool.count + awake.count + unreached.count > before { count += 1 }
    }
    delayed = []
    return count
  }

  /// Lets go of everything: what is still held outside stays as it is and is never turned again.
  func end() {
    faults.rate = 0
    isEnded = true
    arrivals.withLock { $0.isOver = true }
    // What they let go of is the process's, not the world's.
    for case .blocking(let call) in pool { call() }
    incidents.end()
    listeners = []
    loops = []
    pool = []
    delayed = []
    rings.withLock { $0 = RingMonitor() }
  }
}
