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
  @safe enum Work {
    case job(UnsafeMutableRawPointer)
    case call(@convention(c) (UnsafeMutableRawPointer?) -> Void, UnsafeMutableRawPointer?)
    case blocking(@Sendable () -> Void)
  }

  struct Delayed {
    let time: UInt64
    let order: UInt64
    let work: Work
  }

  struct Turned {
    let loop: WorldLoop
    let backend: SimulatedBackend
    let idleness = Idleness()
  }

  /// Turns of one loop, one after the other, in which nothing was done.
  final class Idleness {
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
  var trace: SimulationTrace
  private(set) var findings: [String] = []
  let arrivals = Mutex(Arrivals())
  /// Watches the rings of virtio-net in this world. Behind a lock, as a driver may go on any thread.
  let rings = Mutex(RingMonitor())
  let seed: UInt64
  let limits: Simulation.Limits
  private var orders: UInt64 = 0
  var pool: [Work] = []
  var delayed: [Delayed] = []
  var loops: [Turned] = []
  var made: [SimulatedBackend] = []
  var numbers: [UInt64: Int] = [:]
  private var depth = 0
  /// Those who wait for what passes through the world's kernel.
  var listeners: [SimulatedBell] = []
  /// Tasks that have a name (`SimulatedWorld.task`), in the order of their beginning; nil those that have ended.
  var unended: [String?] = []
  /// Steps since time passed that was waited for.
  private var stepsInPlace = 0
  var isEnded = false

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

  /// What is waited for when nothing can go on, and who waits as far as a world knows.
  private var endlessWait: String {
    var words = endlessTime
    let tasks = unended.compactMap { $0 }
    if !tasks.isEmpty {
      let rest = tasks.count > 10 ? " and \(tasks.count - 10) more" : ""
      words += "; tasks that have not ended: " + tasks.prefix(10).map { "'\($0)'" }.joined(separator: ", ") + rest
    }
    let bells = listeners.compactMap { $0.isWaitedFor ? $0.name : nil }
    if !bells.isEmpty { words += "; somebody waits for what comes to " + bells.joined(separator: " and to ") }
    return words
  }

  private var endlessTime: String {
    let times = loops.compactMap { $0.backend.earliest } + delayed.map { $0.time }
    guard let first = times.min() else { return "a wait for ever: nothing is to be done, and no timer is set" }
    let day: UInt64 = 24 * 3600 * 1_000_000_000
    return first == .max
      ? "a wait for ever: nothing is to be done, but to sleep without an end"
      : "a wait for ever: nothing is to be done for \((first - min(first, now)) / day) days, and longer than "
        + "\(limits.nanoseconds / day) days nobody waits (Simulation.Limits.nanoseconds)"
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

  var awake: [Turned] {
    loops.filter { !$0.loop.isTurning && (!$0.loop.isAsleep || $0.backend.hasReason) }
  }

  /// Loops that somebody has woken, whom that has not reached yet.
  var unreached: [Turned] { loops.filter { $0.backend.isWakeUnderWay } }

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
