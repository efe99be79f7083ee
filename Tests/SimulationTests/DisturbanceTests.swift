import CNetdevSystem
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import Testing

/// What a world does to its program: at any moment, and the same for the same seed.
@Suite struct DisturbanceTests {
  @Test func `what may happen happens anywhere, once`() async throws {
    let places = Places()
    for seed in 0..<50 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let count = Places.Count()
        world.mayHappen("it") { count.value += 1 }
        for step in 0..<3000 {
          await Task.yield()
          if count.value > 0 { places.steps.insert(step) }
          if count.value > 0 { break }
        }
        #expect(count.value <= 1)
        #expect(world.happened == (count.value == 1 ? ["it"] : []))
      }
    }
    #expect(places.steps.count > 10)
  }

  @Test func `what is harmless leaves the world calm, and nothing else does`() async {
    for isHarmless in [true, false] {
      let report = await Simulation(seed: 1).observe { world in
        world.mayHappen("it", isHarmless: isHarmless) {}
        #expect(world.isCalm)
        while world.happened.isEmpty { await Task.yield() }
        #expect(world.isCalm == isHarmless)
        if isHarmless { world.mayHappen("it again", isHarmless: true) {} }
      }
      #expect(report.isCalm == isHarmless && report.happened.first == "it" && report.findings.isEmpty, "\(report)")
    }
    for disturbance in [Simulation.Disturbances.cancellation, .close, .emptyPool] {
      var happened = false
      for seed in 0..<40 as Range<UInt64> where !happened {
        var simulation = Simulation(seed: seed)
        simulation.disturbances = disturbance
        let report = await simulation.observe { world in try await goRound(world, "loopback:?lossless=1") }
        happened = !report.happened.isEmpty
        #expect(report.isCalm == (!happened || disturbance == .emptyPool), "\(report)")
      }
      #expect(happened)
    }
  }

  @Test func `loops are woken late and for nothing, and interrupted on the way into their sleep and out of it`() async {
    let words = [
      ": wakes up for nothing", ": a wake-up reaches it", " and is about to sleep",
      ": does not sleep, as something has come", ", and does not say so yet",
    ]
    var seen: Set<String> = []
    for seed in 0..<100 as Range<UInt64> {
      var simulation = Simulation(seed: seed)
      simulation.limits.traceLines = .max
      let report = await simulation.observe { world in try await goRound(world, "loopback:?lossless=1&placement=own") }
      #expect(report.findings.isEmpty && report.error == nil, "\(report)")
      seen.formUnion(words.filter { word in report.trace.contains { $0.contains(word) } })
    }
    #expect(seen == Set(words))
  }

  @Test func `the program is cancelled, its devices are closed, its pools are empty`() async throws {
    let seen = Places()
    for seed in 0..<100 as Range<UInt64> {
      var simulation = Simulation(seed: seed)
      simulation.disturbances = [.cancellation, .close, .emptyPool]
      let report = await simulation.observe { world in try await goRound(world, "loopback:?lossless=1&placement=own") }
      #expect(report.findings.isEmpty, "\(report.findings)")
      if let error = report.error { #expect(!report.happened.isEmpty, "\(error)") }
      seen.names.formUnion(report.happened)
    }
    #expect(seen.names == ["the program is cancelled", "a device is closed", "a pool is empty"])
  }

  @Test func `a device that is closed is closed, and a pool that is empty is empty`() async {
    var counts = (closed: 0, short: 0)
    for seed in 0..<60 as Range<UInt64> {
      var simulation = Simulation(seed: seed)
      simulation.disturbances = [.close, .emptyPool]
      let places = Places()
      let report = await simulation.observe { world in
        let device = try await world.open("loopback:")
        for _ in 0..<3000 {
          await Task.yield()
          if try !Packet(copying: frame(1), in: device.pool).isInPool { places.names.insert("short") }
          if world.happened.contains("a device is closed") { break }
        }
        if !world.happened.contains("a device is closed") { return try await device.close() }
        // Otherwise for ever.
        try await device.queues[0].closed()
        places.names.insert("closed")
      }
      #expect(report.findings.isEmpty && report.error == nil, "\(report)")
      let isShort = places.names.contains("short")
      if !report.happened.contains("a pool is empty") { #expect(!isShort, "\(report)") }
      if isShort { counts.short += 1 }
      if places.names.contains("closed") { counts.closed += 1 }
    }
    #expect(counts.closed > 3 && counts.short > 3, "\(counts)")
  }

  @Test func `jobs of the pool run in any order, those of a loop in the order in which they came`() async throws {
    var orders: Set<[Int]> = []
    for seed in 0..<100 as Range<UInt64> {
      let (pool, loop) = try await Simulation(seed: seed).run { world in
        let (pool, own) = (Order(), Order())
        let tasks = (0..<3).map { number in Task.detached { pool.numbers.append(number) } }
        let loop = try LoopExecutor(name: "own")
        for number in 0..<20 { loop.execute { own.numbers.append(number) } }
        for task in tasks { await task.value }
        await LoopScope(loop).run { _ in }
        return (pool.numbers, own.numbers)
      }
      orders.insert(pool)
      #expect(loop == Array(0..<20))
    }
    #expect(orders.count == 6)
  }

  @Test func `a task of the world's is cancelled, in some seeds`() async throws {
    var cancelled = 0
    for seed in 0..<100 as Range<UInt64> {
      var simulation = Simulation(seed: seed)
      simulation.disturbances = .cancellation
      let report = await simulation.observe { world in
        try await world.task("the sender") { for _ in 0..<5000 { try await Task.sleep(for: .milliseconds(1)) } }.value
      }
      guard report.happened.contains("the sender is cancelled") else { continue }
      cancelled += 1
      #expect(report.error is CancellationError)
    }
    #expect(cancelled > 2 && cancelled < 50, "\(cancelled)")
  }

  @Test(.enabled(if: netdev_fault_is_built(), "only a build with the trait Testing can hold turns up"))
  func `turns are held up in their middle`() async {
    var held = 0
    for seed in 0..<20 as Range<UInt64> {
      var simulation = Simulation(seed: seed)
      simulation.limits.traceLines = .max
      let report = await simulation.observe { world in try await goRound(world, "loopback:?lossless=1&placement=own") }
      if report.trace.contains(where: { $0.hasSuffix("a turn is held up") }) { held += 1 }
    }
    #expect(held > 10)
  }

  @Test(.enabled(if: netdev_fault_is_built(), "only a build with the trait Testing can refuse calls"))
  func `calls are refused and cut short, and the same seed refuses the same`() async throws {
    var refusals = 0
    for seed in 0..<40 as Range<UInt64> {
      var reports: [Simulation.Report] = []
      for _ in 0..<2 {
        var simulation = Simulation(seed: seed)
        simulation.refusalRate = 10
        reports.append(
          await simulation.observe { world in
            _ = world.makeInterface("tap0")
            let device = try await world.open("tap:tap0")
            try await device.queues[0].send(try Packet(copying: frame(1), in: device.pool))
            try await device.close()
          })
      }
      #expect(reports[0].findings.isEmpty, "\(reports[0].findings)")
      #expect(reports[0].fingerprint == reports[1].fingerprint)
      if let error = reports[0].error { #expect(error is NetworkDeviceError, "\(error)") }
      refusals += reports[0].refusals
    }
    #expect(refusals > 0)
  }
}

private final class Order: @unchecked Sendable {
  // Proof: the tasks of one world, one after the other.
  var numbers: [Int] = []
}

private final class Places: @unchecked Sendable {
  // Proof: the tasks of one world at a time, one after the other.
  final class Count: @unchecked Sendable { var value = 0 }
  var steps: Set<Int> = []
  var names: Set<String> = []
}
