/// A place where tasks of one loop wait, and from which the loop lets them go one by one.
///
/// A continuation resumes through the global pool, which costs two thread switches. A gate is an actor whose executor
/// *parks* the job of whoever enters, and whose opening runs it on the loop: no allocation, no other thread, no lock.
/// It is touched on its loop only: enter it from code that is isolated to an actor of that loop.
@safe public actor Gate: SerialExecutor {
  // Proof: the pointee is touched on the loop's thread only; it lives as long as the gate, and a parked job's task
  // holds the gate.
  //
  // Why the loop may run a job that was left to the gate: this is its thread, and all that the job does as the gate's is `pass`.
  nonisolated(unsafe) private let parked: UnsafeMutablePointer<Parked>

  private struct Parked {
    var jobs = JobList()
    var count = 0
    var passes: UInt64 = 0
  }

  /// An empty gate; it belongs to the loop that it is first used on.
  public init() {
    unsafe parked = .allocate(capacity: 1)
    unsafe parked.initialize(to: Parked())
  }

  deinit { unsafe parked.deallocate() }

  /// The gate is its own executor.
  public nonisolated var unownedExecutor: UnownedSerialExecutor {
    unsafe UnownedSerialExecutor(ordinary: self)
  }

  /// Parks the job of a task that enters.
  public nonisolated func enqueue(_ job: consuming ExecutorJob) {
    unsafe parked.pointee.jobs.append(JobLinks.address(of: UnownedJob(job)))
    unsafe parked.pointee.count += 1
  }

  /// Suspends until the loop opens the gate for this task: first in, first out.
  public func pass() {
    // A store that the optimiser must keep: without it the hop to this gate, which is the whole point, would be dead.
    unsafe parked.pointee.passes &+= 1
  }

  /// How many tasks wait. On the loop.
  public nonisolated var waiting: Int { unsafe parked.pointee.count }

  /// Lets the first task go: it is due on its loop when this returns. False when nobody waited. On the loop.
  @discardableResult public nonisolated func open() -> Bool {
    guard let address = unsafe parked.pointee.jobs.popFirst() else { return false }
    unsafe parked.pointee.count -= 1
    // The loop runs `pass` in the task's turn, and what comes after it in the same job: to return to the loop is no switch then.
    if !LoopCore.letGo(address) { unsafe JobLinks.job(at: address).runSynchronously(on: unownedExecutor) }
    return true
  }

  /// Lets everybody go who waits now. On the loop.
  public nonisolated func openAll() {
    for _ in 0..<waiting { open() }
  }
}
