import CNetdevSystem
import CTestSupport
import Foundation
import Glibc
import Synchronization
import Testing

@testable import LibeventConcurrency

/// A backend that has no descriptors and no timers: it sleeps on a semaphore and counts what wakes it.
private final class CountingBackend: LoopBackend, Sendable {
  private let bell = DispatchSemaphore(value: 0)
  private let count = Atomic<Int>(0)
  private let asleep = Atomic<Int>(0)
  var wakes: Int { count.load(ordering: .acquiring) }
  /// How often the loop has begun to wait.
  var waits: Int { asleep.load(ordering: .acquiring) }

  var now: UInt64 { netdev_monotonic_nanoseconds() }
  func poll() {}
  func wait() {
    asleep.add(1, ordering: .acquiringAndReleasing)
    bell.wait()
  }
  func wake() {
    count.add(1, ordering: .acquiringAndReleasing)
    bell.signal()
  }
  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent { throw LoopError(.system, "makeSource", errno: ENOSYS) }
  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    throw LoopError(.system, "makeTimer", errno: ENOSYS)
  }
}

private actor Resident {
  let loop: LoopExecutor
  private(set) var ran = 0
  init(_ loop: LoopExecutor) { self.loop = loop }
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// Enqueues so many jobs on the loop, from the loop, and waits for them.
  func multiply(_ count: Int) async {
    let gate = Gate()
    for number in 0..<count {
      // Isolated to this actor from the start: it is enqueued here and now, on the loop. (`Task.yield` would come back from
      // the global pool.)
      Task {
        self.loop.requestTurn()
        self.ran += 1
        if number == count - 1 { gate.open() }
      }
    }
    await gate.pass()
  }
}

@Suite(.timeLimit(.minutes(2))) struct LoopWakeTests {
  @Test func `jobs that the loop enqueues itself wake nobody; one from outside wakes a sleeping loop once`()
    async throws
  {
    let backend = CountingBackend()
    let loop = LoopExecutor(name: "counted", backend: backend)
    let ended = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      unsafe LoopCore.run(loop.core)
      ended.signal()
    }
    let resident = Resident(loop)
    func sleeps(_ times: Int) async throws {
      while backend.waits < times { try await Task.sleep(for: .milliseconds(1)) }
    }
    try await sleeps(1)
    for round in 1...20 {
      let before = backend.wakes
      // This call and no other comes from outside; it comes while the loop sleeps.
      await resident.multiply(1000)
      try await sleeps(round + 1)
      #expect(backend.wakes == before + 1, "round \(round)")
      #expect(backend.waits == round + 1, "round \(round)")
    }
    #expect(await resident.ran == 20_000)
    #expect(loop.statistics.jobs >= 20_000)
    unsafe loop.core.pointee.inlet._withUnsafeGuaranteedRef { $0.requestStop() }
    ended.wait()
  }

  /// The CPUs that the calling thread may run on, as the kernel says: "0-3,6".
  private static func affinity() -> [Int] {
    guard let status = try? String(contentsOfFile: "/proc/thread-self/status", encoding: .utf8),
      let line = status.split(separator: "\n").first(where: { $0.hasPrefix("Cpus_allowed_list:") }),
      let list = line.split(separator: "\t").last
    else { return [] }
    return list.split(separator: ",").flatMap { range in
      let ends = range.split(separator: "-").compactMap { Int($0) }
      return Array((ends.first ?? 0)...(ends.last ?? 0))
    }
  }

  private static func affinityOfThreadStartedHere() -> [Int] {
    let found = Found()
    OwnThread("own") { found.cpus.withLock { $0 = affinity() } }?.join()
    return found.cpus.withLock { $0 }
  }

  private final class Found: Sendable {
    let cpus = Mutex<[Int]>([])
  }

  @Test func `a pinned loop's thread may run on its CPU and no other; one that is not pinned where the process may`()
    async throws
  {
    let allowed = Self.affinity()
    #expect(!allowed.isEmpty)
    for cpu in allowed {
      let loop = try LoopExecutor(name: "pinned", cpu: cpu)
      #expect(await LoopScope(loop).run { _ in Self.affinity() } == [cpu])
    }
    let free = try LoopExecutor(name: "free")
    #expect(await LoopScope(free).run { _ in Self.affinity() } == allowed)
    // A thread that a pinned loop starts does not share the loop's CPU.
    let pinned = try LoopExecutor(name: "pinned", cpu: allowed[0])
    #expect(await LoopScope(pinned).run { _ in Self.affinityOfThreadStartedHere() } == allowed)
  }

  @Test
  func `where the system refuses CPUs of its own to a thread that a pinned one starts, it shares the pinned one's`()
    async throws
  {
    let cpu = Self.affinity()[0]
    let pinned = try LoopExecutor(name: "pinned", cpu: cpu)
    let refusal = await LoopScope(pinned).run { _ in test_refuse_here(test_call_sched_setaffinity, EPERM) }
    #expect(refusal == 0)
    #expect(await LoopScope(pinned).run { _ in Self.affinityOfThreadStartedHere() } == [cpu])
  }
}
