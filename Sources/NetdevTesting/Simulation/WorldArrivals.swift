internal import CSimulation
internal import LibeventConcurrency
internal import Synchronization

// MARK: - What comes in

extension WorldSchedule {
  func makeBackend(for name: String) -> any LoopBackend {
    let backend = SimulatedBackend(world: self, number: trace.add(loop: name), name: name)
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
  func see(_ job: UnsafeMutableRawPointer) -> Int {
    let identity = unsafe simulation_task(job)
    guard identity != 0 else { return 0 }
    if let known = numbers[identity] { return known }
    numbers[identity] = numbers.count + 1
    arrivals.withLock { _ = $0.tasks.insert(identity) }
    return numbers.count
  }

  /// From any thread: a loop of this world was woken. True when that may reach it later, as the seed says: whoever wakes a loop has
  /// left something for it before, and the loop may have woken by itself and found that meanwhile.
  func noteWake(of backend: SimulatedBackend) -> Bool {
    guard SimulationThread.current !== self else { return !isEnded && random.oneIn(3) }
    let thread = SimulationThread.description
    let isOver = arrivals.withLock { arrivals in
      if !arrivals.isOver { arrivals.escapes.append("\(thread) woke the loop '\(backend.name)'") }
      return arrivals.isOver
    }
    // Never done any more; who waits for it waits for ever.
    if isOver, backend.noteLateWake() {
      unsafe simulation_tell(seed, "is over, and \(thread) woke its loop '\(backend.name)', which does not go on")
    }
    return false
  }

  /// Of the task that was begun last: its name, by which the trace calls it.
  func nameNewest(_ name: String) { trace.add(task: numbers.count, name: name) }

  /// A task of this name begins: what to end it by.
  func begin(task name: String) -> Int {
    let place = unended.endIndex
    unended.append(name)
    return place
  }

  /// That one has ended, on whatever thread.
  func end(task place: Int) { if SimulationThread.current === self, !isEnded { unended[place] = nil } }

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
  func expectHere(_ use: @autoclosure () -> String) -> Bool {
    if SimulationThread.current === self { return true }
    let thread = SimulationThread.description
    let escape = "\(thread) \(use())"
    let isOver = arrivals.withLock { arrivals in
      if !arrivals.isOver { arrivals.escapes.append(escape) }
      return arrivals.isOver
    }
    // In a later world it would be chance that nobody drew, or a bell that lets everybody through.
    if isOver, let current = SimulationThread.current {
      current.find("a task \(use()): that of seed \(seed), which is over")
    }
    return false
  }

  /// The same of what anybody may read as soon as the world is over.
  func mayRead(_ use: @autoclosure () -> String) -> Bool { arrivals.withLock { $0.isOver } || expectHere(use()) }

  func takeArrivals() {
    let (jobs, escapes) = arrivals.withLock { arrivals in
      let taken = (arrivals.jobs, arrivals.escapes)
      arrivals.jobs = []
      arrivals.escapes = []
      return taken
    }
    // First who did it, then to whom.
    for escape in escapes { find("an escape: \(escape)") }
    for address in jobs {
      guard let job = unsafe UnsafeMutableRawPointer(bitPattern: address) else { continue }
      let task = unsafe see(job)
      find("\(trace.name(task: task)) escaped")
      unsafe pool.append(.job(job))
    }
  }
}
