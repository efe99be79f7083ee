import CNetdevSystem
import Synchronization
import Testing

@testable import LibeventConcurrency

/// A hook that asks for turn after turn, and says that it works, or does not.
@safe private actor Turner {
  private struct State {
    var left = 0
    var works = false
  }

  let loop: LoopExecutor
  // Proof: the hook is removed before this goes, or the loop has ended.
  private let state: UnsafeMutablePointer<State>
  private var token: TurnHook.Token?
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(_ loop: LoopExecutor) {
    self.loop = loop
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
  }

  func join() throws {
    token = try loop.addHook(
      unsafe TurnHook(
        stage: .driver, context: UnsafeMutableRawPointer(state), begin: { _ in },
        end: { context in
          let state = unsafe context.assumingMemoryBound(to: State.self)
          guard unsafe state.pointee.left > 0 else { return false }
          unsafe state.pointee.left -= 1
          if unsafe state.pointee.works { TurnHook.noteWork() }
          return true
        }))
  }

  func turn(_ count: Int, works: Bool) { unsafe state.pointee = State(left: count, works: works) }
  var left: Int { unsafe state.pointee.left }

  func leave() throws {
    if let token { try loop.removeHook(token) }
    unsafe state.deallocate()
  }
}

/// An eventfd that a loop watches.
actor SignalWatch {
  /// What the source does with what makes its descriptor ready.
  enum Manner: CaseIterable { case takesIt, leavesIt }

  private final class Count: Sendable { let value = Atomic<Int>(0) }

  let loop: LoopExecutor
  private nonisolated let descriptor = netdev_eventfd_create()
  private nonisolated let count = Count()
  private var source: LoopSource?
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(_ loop: LoopExecutor) { self.loop = loop }

  deinit { netdev_close(descriptor) }

  func begin(_ manner: Manner) throws {
    let count = count
    let handler = { _ = count.value.add(1, ordering: .relaxed) }
    source =
      switch manner {
      case .takesIt: try loop.makeSource(eventfd: descriptor, handler: handler)
      case .leavesIt: try loop.makeSource(descriptor: descriptor, readiness: .readable, handler: handler)
      }
    source?.resume()
  }

  func end() { source?.cancel() }

  nonisolated func signal() { _ = netdev_eventfd_signal(descriptor) }

  nonisolated var seen: Int { count.value.load(ordering: .relaxed) }
}

@Suite(.timeLimit(.minutes(2))) struct LoopIdlenessTests {
  @Test func `turns that do nothing are counted, and a loop that runs away is reported once in a while`() async throws {
    let reports = Mutex<[UInt64]>([])
    var wanted = LoopReports()
    wanted.onSpin = { turns in reports.withLock { $0.append(turns) } }
    let loop = try LoopExecutor(name: "test", reports: wanted)
    let turner = Turner(loop)
    try await turner.join()
    await turner.turn(300_000, works: false)
    while await turner.left > 0 { try await Task.sleep(for: .milliseconds(5)) }
    #expect(loop.statistics.idleTurns > 290_000)
    #expect(reports.withLock { $0.count } == 1)
    #expect(reports.withLock { $0.allSatisfy { $0 >= 10_000 } })
    try await turner.leave()
  }

  @Test func `turns in which a hook says that it did something, and those of jobs, are not idle`() async throws {
    let loop = try LoopExecutor(name: "test")
    let turner = Turner(loop)
    try await turner.join()
    await turner.turn(100_000, works: true)
    while await turner.left > 0 { try await Task.sleep(for: .milliseconds(1)) }
    for _ in 0..<1000 { _ = await turner.left }
    // The look after the last work, and what a request to turn finds done already.
    #expect(loop.statistics.idleTurns < 100)
    #expect(loop.statistics.turns > 100_000)
    try await turner.leave()
  }

  @Test(arguments: SignalWatch.Manner.allCases)
  func `a signal that is taken is work, however late it comes; readiness that is left where it is makes a loop spin`(
    _ manner: SignalWatch.Manner
  ) async throws {
    let loop = try LoopExecutor(name: "test")
    let watch = SignalWatch(loop)
    try await watch.begin(manner)
    let idle = loop.statistics.idleTurns
    let signals = 2000
    for number in 1...signals {
      watch.signal()
      // Nothing is asked of the loop meanwhile: that would be work.
      while watch.seen < number { await Task.yield() }
    }
    if manner == .takesIt {
      // One is taken or two: nothing else has woken the loop.
      #expect(loop.statistics.idleTurns - idle < UInt64(signals / 20), "of \(signals) signals")
    } else {
      while loop.statistics.idleTurns - idle < UInt64(signals) { await Task.yield() }
    }
    await watch.end()
  }

  @Test(arguments: [false, true])
  func `a wake-up that comes late for its job is no idle turn; a turn that is asked for and has nothing to do is one`(
    isAskedFor: Bool
  ) async throws {
    let loop = try LoopExecutor(name: "test")
    while loop.statistics.sleeps == 0 { await Task.yield() }
    let before = loop.statistics
    for number in 1...UInt64(2000) {
      // What wakes it for a job that a turn has just done is the signal alone; a look at the end of a turn may take it.
      repeat {
        if isAskedFor { loop.wake() } else { unsafe loop.core.pointee.backend.wake() }
        await Task.yield()
      } while loop.statistics.turns < before.turns + number
    }
    let idle = loop.statistics.idleTurns - before.idleTurns
    #expect(isAskedFor ? idle > 1000 : idle < 100, "\(idle)")
  }

  @Test func `the rule: the first turn without work is a look, more of them are idle; many in a second are a word`() {
    var idleness = LoopIdleness()
    func note(_ isIdle: Bool, _ now: UInt64) -> Bool { idleness.note(isIdle: isIdle, at: now) }
    func report(_ now: UInt64) -> UInt64? { idleness.report(at: now) }
    #expect(!note(true, 0))
    for turn in 1...LoopIdleness.runaway {
      #expect(report(turn) == nil)
      #expect(note(true, turn))
    }
    #expect(report(20_000) == LoopIdleness.runaway)
    #expect(note(true, 20_001))
    #expect(report(20_001) == nil)
    #expect(!note(false, 20_002))
    #expect(!note(true, 20_003))
    // Few in every second are none.
    for second in 1...UInt64(20) {
      let start: UInt64 = (1 << 40) + second * 2_000_000_000
      for turn in 1..<LoopIdleness.runaway { #expect(note(true, start + turn)) }
      #expect(report(start + 20_000) == nil)
    }
  }
}
