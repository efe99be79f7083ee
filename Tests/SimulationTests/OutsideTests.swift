import Dispatch
import Foundation
import Glibc
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import Synchronization
import Testing

/// Dispatch, clocks and time in a world.
@Suite struct OutsideTests {
  private struct Use: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let use: @Sendable () -> Void
  }

  private static let uses: [Use] = [
    Use(testDescription: "dispatch_async") { DispatchQueue.global().async {} },
    Use(testDescription: "dispatch_async") { DispatchQueue(label: "own").async {} },
    Use(testDescription: "dispatch_after") { DispatchQueue.global().asyncAfter(deadline: .now() + 3600) {} },
    Use(testDescription: "dispatch_barrier_async") { DispatchQueue(label: "own").async(flags: .barrier) {} },
    Use(testDescription: "dispatch_source_create") {
      let timer = DispatchSource.makeTimerSource()
      timer.schedule(deadline: .now() + 0.2)
      timer.setEventHandler {}
      timer.activate()
      timer.cancel()
    },
    Use(testDescription: "dispatch_group_async") { DispatchQueue.global().async(group: DispatchGroup()) {} },
    Use(testDescription: "dispatch_group_notify") { DispatchGroup().notify(queue: .global()) {} },
    Use(testDescription: "dispatch_apply") { DispatchQueue.concurrentPerform(iterations: 2) { _ in } },
  ]

  @Test(arguments: uses) private func `a program's own use of Dispatch is found, each time`(_ use: Use) async {
    for seed in 0..<20 as Range<UInt64> {
      let report = await Simulation(seed: seed).observe { _ in use.use() }
      #expect(report.findings.first?.contains("used Dispatch: \(use.testDescription);") == true, "\(report)")
    }
  }

  @Test func `what Dispatch calls back is no program's after its world`() async {
    let report = await Simulation(seed: 1).observe { world in
      let number = await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
          usleep(100_000)
          continuation.resume(returning: 3)
        }
      }
      Issue.record("it goes on outside, with \(number)")
    }
    #expect(report.findings.count == 1, "\(report)")
    // Its task is resumed meanwhile.
    try? await Task.sleep(for: .milliseconds(300))
  }

  @Test func `a sleep with a tolerance takes no time`() async throws {
    let began = ContinuousClock.now
    for seed in 0..<20 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let before = world.now
        try await Task.sleep(for: .seconds(3600), tolerance: .seconds(10))
        try await ContinuousClock().sleep(until: .now + .seconds(3600), tolerance: .milliseconds(1))
        try await SuspendingClock().sleep(until: .now + .seconds(3600), tolerance: .milliseconds(1))
        #expect(world.now - before >= .seconds(3 * 3600))
        #expect(world.now - before < .seconds(3 * 3600 + 60))
        let sleeper = Task { try await Task.sleep(for: .seconds(3600), tolerance: .seconds(10)) }
        await Task.yield()
        sleeper.cancel()
        _ = await sleeper.result
      }
    }
    #expect(ContinuousClock.now - began < .seconds(1800))
  }

  @Test func `sleeps without an end are found, unless they are cancelled`() async throws {
    func sleep(_ body: @escaping @Sendable () async throws -> Void) async -> String {
      await Simulation(seed: 1).observe { _ in try await body() }.findings.first ?? ""
    }
    let endless = await sleep { try await Task.sleep(nanoseconds: .max) }
    #expect(endless.contains("but to sleep without an end"), "\(endless)")
    let distant = await sleep { try await Task.sleep(until: .now + .seconds(1_000_000_000_000), clock: .continuous) }
    #expect(distant.contains("but to sleep without an end"), "\(distant)")
    let years = await sleep { try await Task.sleep(for: .seconds(3650 * 24 * 3600)) }
    #expect(years.contains("nothing is to be done for 36"), "\(years)")
    #expect(years.contains("longer than 400 days nobody waits"), "\(years)")
    for time in [Duration.seconds(3650 * 24 * 3600), .seconds(1_000_000_000_000)] {
      let cancelled = await sleep {
        let task = Task { try await Task.sleep(for: time) }
        await Task.yield()
        task.cancel()
        _ = await task.result
      }
      #expect(cancelled == "")
      let left = await sleep { Task { try await Task.sleep(for: time) } }
      #expect(left.contains("1 tasks still sleep at the end"), "\(left)")
    }
  }

  @Test func `no single wait is longer than the limit, and all of them together may be`() async {
    func report(seconds: Int, times: Int) async -> Simulation.Report {
      var simulation = Simulation(seed: 1)
      simulation.limits.nanoseconds = 3600 * 1_000_000_000
      return await simulation.observe { _ in for _ in 0..<times { try await Task.sleep(for: .seconds(seconds)) } }
    }
    let short = await report(seconds: 3599, times: 100)
    #expect(short.findings.isEmpty && short.duration > .seconds(99 * 3600), "\(short)")
    let long = await report(seconds: 3601, times: 1)
    #expect(long.findings.first?.contains("a wait for ever: nothing is to be done for 0 days") == true, "\(long)")
    #expect(long.duration < .seconds(3600))
  }

  @Test func `who waits for times all along is not in place`() async throws {
    var simulation = Simulation(seed: 1)
    simulation.limits.stepsInPlace = 1000
    try await simulation.run { _ in
      let busy = Task { while !Task.isCancelled { await Task.yield() } }
      for _ in 0..<1000 { try await Task.sleep(for: .microseconds(50)) }
      busy.cancel()
      await busy.value
    }
  }

  private static func seconds(_ clock: clockid_t) -> Int {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    return time.tv_sec
  }

  private static let clocks: [(name: String, epoch: Int, read: @Sendable () -> Int)] = [
    ("CLOCK_REALTIME", 1_704_067_200, { seconds(CLOCK_REALTIME) }),
    ("CLOCK_REALTIME_COARSE", 1_704_067_200, { seconds(CLOCK_REALTIME_COARSE) }),
    ("CLOCK_TAI", 1_704_067_200, { seconds(CLOCK_TAI) }),
    ("CLOCK_MONOTONIC", 0, { seconds(CLOCK_MONOTONIC) }),
    ("CLOCK_MONOTONIC_COARSE", 0, { seconds(CLOCK_MONOTONIC_COARSE) }),
    ("CLOCK_MONOTONIC_RAW", 0, { seconds(CLOCK_MONOTONIC_RAW) }),
    ("CLOCK_BOOTTIME", 0, { seconds(CLOCK_BOOTTIME) }),
    ("time", 1_704_067_200, { time(nil) }),
    (
      "gettimeofday", 1_704_067_200,
      {
        var time = timeval()
        unsafe gettimeofday(&time, nil)
        return time.tv_sec
      }
    ),
    (
      "timespec_get", 1_704_067_200,
      {
        var time = timespec()
        unsafe timespec_get(&time, TIME_UTC)
        return time.tv_sec
      }
    ),
    ("Date", 1_704_067_200, { Int(Date().timeIntervalSince1970) }),
    ("DispatchTime", 0, { Int(DispatchTime.now().uptimeNanoseconds / 1_000_000_000) }),
    ("systemUptime", 0, { Int(ProcessInfo.processInfo.systemUptime) }),
  ]

  @Test func `every clock shows the world's time`() async throws {
    try await Simulation(seed: 1).run { world in
      for days in [0, 1, 30] {
        try await Task.sleep(for: .seconds(days * 24 * 3600))
        for (name, epoch, read) in Self.clocks {
          let shown = read() - epoch - Int(world.now.components.seconds)
          #expect((-1...1).contains(shown), "\(name), \(shown) s apart")
        }
      }
    }
    // Outside they show the machine's.
    for (name, epoch, read) in Self.clocks where epoch > 0 { #expect(read() > epoch + 30 * 24 * 3600, "\(name)") }
  }
}
