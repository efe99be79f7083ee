#if Testing
internal import CNetdevSystem
#endif
internal import Synchronization

/// What other threads may touch of a loop: jobs that come in, requests, events to end, and the way to wake it. Everything else
/// of a loop belongs to its thread.
///
/// Why nothing is lost, whatever the machine reorders. *Going to sleep*: who brings something stores it (`newest`,
/// `isTurnRequested`, `isStopRequested`) and then looks at `isSleeping`; the loop stores `isSleeping` and then looks at those.
/// All are sequentially consistent, so in their one order either the loop's look comes after the store and it does not sleep,
/// or the other's look comes after `isSleeping` and it wakes. *Seeing what was brought*: a job is read after an acquiring
/// exchange of `newest`, what belongs to a request after an exchange of `isTurnRequested` that acquires. An exchange takes
/// the latest value: a request that it does not see is still there afterwards, and one that it takes away it has seen. Requests
/// are exchanges too: a plain store over another's request would hide what that other left, and the request would be gone.
///
/// `Models/Sources/LibeventConcurrency` runs this file in every order that the memory model allows.
final class LoopInlet: Sendable {
  /// Newest job of a stack that anybody pushes to and the loop takes whole.
  private let newest = Atomic<UInt>(0)
  private let isSleeping = Atomic<Bool>(false)
  private let isTurnRequested = Atomic<Bool>(false)
  private let isStopRequested = Atomic<Bool>(false)
  /// Calls from `execute`, oldest first.
  private let calls = Mutex<[@Sendable () -> Void]>([])
  // What the loop counts: written by its thread alone, read from anywhere.
  private let turns = Atomic<UInt64>(0)
  private let jobs = Atomic<UInt64>(0)
  private let sleeps = Atomic<UInt64>(0)
  private let stalls = Atomic<UInt64>(0)
  private let idleTurns = Atomic<UInt64>(0)
  private let refusedWatches = Atomic<UInt64>(0)
  private let refusedTimers = Atomic<UInt64>(0)
  private let turned = Atomic<UInt64>(0)
  /// A test's, where one makes the loop, or one of its loops does.
  let ledger = LoopLedger.forNewLoop
  /// Events whose handles went elsewhere than on the loop; nil when the loop has ended them all.
  private let discarded = Mutex<[Int]?>([])
  // Proof: only `wake` is called here, which backends allow from any thread.
  nonisolated(unsafe) private let backend: any LoopBackend

  init(backend: any LoopBackend) { unsafe self.backend = backend }

  // MARK: From any thread

  /// Adds a job and wakes the loop if it sleeps. What was stored before is visible to the loop that takes the job.
  func push(_ address: UInt) {
    var expected = newest.load(ordering: .relaxed)
    while true {
      JobLinks.setNext(address, expected)
      let (exchanged, original) = newest.compareExchange(
        expected: expected, desired: address, ordering: .sequentiallyConsistent)
      if exchanged { break }
      expected = original
    }
    wakeIfSleeping()
  }

  /// Asks for a turn.
  func requestTurn() {
    _ = isTurnRequested.exchange(true, ordering: .sequentiallyConsistent)
    wakeIfSleeping()
  }

  /// Asks the loop to end an event whose handle is gone.
  func discard(_ event: Int) {
    discarded.withLock { $0?.append(event) }
    requestTurn()
  }

  /// Adds a call and asks for the turn that makes it.
  func execute(_ call: @escaping @Sendable () -> Void) {
    calls.withLock { $0.append(call) }
    requestTurn()
  }

  /// What the loop has done so far. It does not notice being asked.
  var statistics: LoopStatistics {
    LoopStatistics(
      turns: turns.load(ordering: .relaxed), jobs: jobs.load(ordering: .relaxed),
      sleeps: sleeps.load(ordering: .relaxed), stalls: stalls.load(ordering: .relaxed),
      idleTurns: idleTurns.load(ordering: .relaxed), refusedWatches: refusedWatches.load(ordering: .relaxed),
      refusedTimers: refusedTimers.load(ordering: .relaxed))
  }

  /// When a loop that somebody else's thread turns has turned last, by its clock.
  var turnedAt: UInt64 { turned.load(ordering: .relaxed) }

  /// Says so.
  func noteTurn(at time: UInt64) { turned.store(time, ordering: .relaxed) }

  /// Asks the loop to end after its turn.
  func requestStop() {
    isStopRequested.store(true, ordering: .sequentiallyConsistent)
    unsafe backend.wake()
  }

  /// Who stored something for the loop looks whether it sleeps; who goes to sleep says so first and then looks for
  /// something stored. One of the two sees the other.
  private func wakeIfSleeping() {
    if isSleeping.load(ordering: .sequentiallyConsistent), isSleeping.exchange(false, ordering: .sequentiallyConsistent)
    {
      unsafe backend.wake()
    }
  }

  // MARK: On the loop

  /// A hint: before it sleeps the loop looks again, in order.
  var hasJobs: Bool { newest.load(ordering: .relaxed) != 0 }

  var shallStop: Bool { isStopRequested.load(ordering: .acquiring) }

  /// Takes a request for a turn, at the beginning of one: true when there was one, and what its maker stored before is seen.
  func beginTurn() -> Bool {
    // The load spares a turn that nobody asked for the exchange; what it misses is there in the next turn.
    isTurnRequested.load(ordering: .relaxed) && isTurnRequested.exchange(false, ordering: .sequentiallyConsistent)
  }

  /// Makes the calls that are there, oldest first; how many they were.
  func makeCalls() -> Int {
    let due = calls.withLock { calls in
      let due = calls
      calls = []
      return due
    }
    for call in due { call() }
    return due.count
  }

  /// Events to end.
  func takeDiscarded() -> [Int] {
    discarded.withLock { list in
      let taken = list ?? []
      if !taken.isEmpty { list = [] }
      return taken
    }
  }

  var hasDiscarded: Bool { discarded.withLock { $0?.isEmpty == false } }

  /// The loop has ended its events: nobody need tell it of any.
  func close() { discarded.withLock { $0 = nil } }

  /// Moves the jobs that are there to the end of `list`, oldest first.
  func drain(into list: inout JobList) {
    guard hasJobs else { return }
    var job = newest.exchange(0, ordering: .acquiring)
    var oldest: UInt = 0
    while job != 0 {
      let next = JobLinks.next(job)
      JobLinks.setNext(job, oldest)
      oldest = job
      job = next
    }
    while oldest != 0 {
      let next = JobLinks.next(oldest)
      list.append(oldest)
      oldest = next
    }
  }

  /// Says that the loop sleeps now; false, and it shall not, when something has come meanwhile.
  func beginSleep() -> Bool {
    isSleeping.store(true, ordering: .sequentiallyConsistent)
    #if Testing
    if unsafe netdev_fault_is_planted("blind-sleep") { return true }
    #endif
    let isWanted =
      newest.load(ordering: .sequentiallyConsistent) != 0 || isTurnRequested.load(ordering: .sequentiallyConsistent)
      || isStopRequested.load(ordering: .sequentiallyConsistent)
    if isWanted { endSleep() }
    return !isWanted
  }

  /// Relaxed: who still sees the loop asleep wakes it once too often, or finds by the exchange that it need not; and before
  /// it sleeps again the loop looks again.
  func endSleep() { isSleeping.store(false, ordering: .relaxed) }

  /// A loop that never turns again: each that leaves something wakes it.
  func sleepForGood() { isSleeping.store(true, ordering: .sequentiallyConsistent) }

  /// Counts a turn in which so many jobs ran.
  func countTurn(_ turn: UInt64, jobs count: Int) {
    turns.store(turn, ordering: .relaxed)
    Self.add(UInt64(count), to: jobs)
  }

  /// Counts a sleep, and keeps what the system has refused so far; what of that it had never refused before.
  func countSleep(refusedWatches watches: UInt64, refusedTimers timers: UInt64) -> (watches: Bool, timers: Bool) {
    Self.add(1, to: sleeps)
    let news = (
      watches > 0 && refusedWatches.load(ordering: .relaxed) == 0,
      timers > 0 && refusedTimers.load(ordering: .relaxed) == 0
    )
    refusedWatches.store(watches, ordering: .relaxed)
    refusedTimers.store(timers, ordering: .relaxed)
    return news
  }

  func countIdleTurn() {
    Self.add(1, to: idleTurns)
    ledger?.countIdleTurn()
  }

  func countStall() { Self.add(1, to: stalls) }

  /// One thread adds: a load and a store will do.
  private static func add(_ count: UInt64, to counter: borrowing Atomic<UInt64>) {
    counter.store(counter.load(ordering: .relaxed) &+ count, ordering: .relaxed)
  }
}
