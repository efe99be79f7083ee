internal import Synchronization

/// What other threads may touch of a loop: jobs that come in, requests, and the way to wake it. Everything else of a loop
/// belongs to its thread.
final class LoopInlet: Sendable {
  /// Newest job of a stack that anybody pushes to and the loop takes whole.
  private let newest = Atomic<UInt>(0)
  private let isSleeping = Atomic<Bool>(false)
  private let isTurnRequested = Atomic<Bool>(false)
  private let isStopRequested = Atomic<Bool>(false)
  // What the loop counts: written by its thread alone, read from anywhere.
  private let turns = Atomic<UInt64>(0)
  private let jobs = Atomic<UInt64>(0)
  private let sleeps = Atomic<UInt64>(0)
  private let stalls = Atomic<UInt64>(0)
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
    isTurnRequested.store(true, ordering: .sequentiallyConsistent)
    wakeIfSleeping()
  }

  /// What the loop has done so far. It does not notice being asked.
  var statistics: LoopStatistics {
    LoopStatistics(
      turns: turns.load(ordering: .relaxed), jobs: jobs.load(ordering: .relaxed),
      sleeps: sleeps.load(ordering: .relaxed), stalls: stalls.load(ordering: .relaxed))
  }

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

  var hasJobs: Bool { newest.load(ordering: .relaxed) != 0 }

  var shallStop: Bool { isStopRequested.load(ordering: .acquiring) }

  /// Forgets a request for a turn, at the beginning of one.
  func beginTurn() {
    if isTurnRequested.load(ordering: .relaxed) { isTurnRequested.store(false, ordering: .sequentiallyConsistent) }
  }

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
    let isWanted =
      newest.load(ordering: .sequentiallyConsistent) != 0 || isTurnRequested.load(ordering: .sequentiallyConsistent)
      || isStopRequested.load(ordering: .sequentiallyConsistent)
    if isWanted { endSleep() }
    return !isWanted
  }

  func endSleep() { isSleeping.store(false, ordering: .relaxed) }

  /// Counts a turn in which so many jobs ran.
  func countTurn(_ turn: UInt64, jobs count: Int) {
    turns.store(turn, ordering: .relaxed)
    Self.add(UInt64(count), to: jobs)
  }

  func countSleep() { Self.add(1, to: sleeps) }

  func countStall() { Self.add(1, to: stalls) }

  /// One thread adds: a load and a store will do.
  private static func add(_ count: UInt64, to counter: borrowing Atomic<UInt64>) {
    counter.store(counter.load(ordering: .relaxed) &+ count, ordering: .relaxed)
  }
}
