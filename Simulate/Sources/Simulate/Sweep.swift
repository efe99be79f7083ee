import Glibc
import LibeventConcurrency
import Netdev
import NetdevTesting
import Virtio

/// Many runs, until one finds something.
struct Sweep {
  private let options: Options

  init(_ options: Options) { self.options = options }

  /// False when something was found.
  func run() async -> Bool {
    await warmUp()
    var runs = 0
    var descriptors = Self.descriptors
    var refusals = 0
    for seed in options.seeds where seed % options.parts == options.part {
      let run = run(of: seed)
      let report = await report(run)
      if let finding = report.finding {
        say("FOUND \(run.command): \(finding)")
        await tell(run) { await self.report($0).finding }
        return false
      }
      if options.isTwice, let difference = await difference(run, report) {
        say("FOUND \(run.command) --twice: the same seed gave two traces")
        await tell(run, " --twice") { await self.difference($0, self.report($0)) }
        say(difference)
        return false
      }
      let now = count(run.scenario, above: descriptors)
      if now > descriptors, !run.scenario.mayQuarantine {
        say("FOUND \(run.command): \(now - descriptors) descriptors are left open")
        await tell(run) { run in
          let before = Self.descriptors
          _ = await self.report(run)
          let left = count(run.scenario, above: before) - before
          return left > 0 ? "\(left) descriptors are left open" : nil
        }
        return false
      }
      runs += 1
      refusals += report.refusals
      descriptors = now
    }
    // Their time is over.
    alarm(0)
    say("\(runs) runs, \(refusals) calls refused or cut short")
    return options.world != nil || runs < 1000 || looksAtAllClauses()
  }

  /// Where the traces of two runs of one seed part; nil where they do not.
  private func difference(_ run: Run, _ report: Simulation.Report) async -> String? {
    let again = await self.report(run, isAgain: true)
    guard again.fingerprint != report.fingerprint || again.trace != report.trace else { return nil }
    let lines = zip(report.trace, again.trace).filter { $0 != $1 }.map { "  \($0)\n  \($1)" }
    return lines.isEmpty ? "  the last events are the same" : lines.joined(separator: "\n")
  }

  /// Descriptors that are open; those above `before` only if they stay, as the world's thread may still be on its way out.
  private func count(_ scenario: Scenario, above before: Int) -> Int {
    var now = Self.descriptors
    for _ in 0..<200 where now > before && !scenario.mayQuarantine {
      usleep(1000)
      now = Self.descriptors
    }
    return now
  }

  /// What the runtime opens for itself it opens in the first runs: one of each world that is to run, whatever comes of it.
  private func warmUp() async {
    for (place, scenario) in Scenario.all.enumerated() where options.world.map({ $0 == scenario.name }) ?? true {
      guard !scenario.mayQuarantine else { continue }
      _ = await report(Run(scenario: scenario, seed: UInt64(place), plan: Plan(size: 3)))
    }
    // Threads may still be on their way out.
    var (last, same) = (Self.descriptors, 0)
    while same < 20 {
      usleep(1000)
      let now = Self.descriptors
      same = now == last ? same + 1 : 0
      last = now
    }
  }

  /// A clause that nothing was held against in so many worlds is not checked at all.
  private func looksAtAllClauses() -> Bool {
    let missed = RingClause.allCases.filter { RingMonitor.checks(of: $0) == 0 }
    for clause in missed {
      say("FOUND no ring was ever looked at for the clause \(clause) (\(clause.citation(.split) ?? "VIRTIO 1.4"))")
    }
    return missed.isEmpty
  }

  private func run(of seed: UInt64) -> Run {
    // One seed after the other goes through all worlds, and then through all of them in the next size: the seed alone says which.
    let (round, place) = seed.quotientAndRemainder(dividingBy: UInt64(Scenario.all.count))
    let scenario = Scenario.all.first { $0.name == options.world } ?? Scenario.all[Int(place)]
    let size = options.size ?? [3, 8, 20][Int(round % 3)]
    return Run(scenario: scenario, seed: seed, plan: Plan(size: size, disturbances: options.disturbances))
  }

  private func report(_ run: Run, isAgain: Bool = false) async -> Simulation.Report {
    CrashReport.note(run.command)
    // What a run has left that found something.
    Self.clean()
    var simulation = Simulation(seed: run.seed)
    simulation.limits.traceLines = options.traceLines
    simulation.limits.steps = 300_000
    let disturbances = run.plan.disturbances
    if disturbances.contains(.cancel) { simulation.disturbances.insert(.cancellation) }
    if disturbances.contains(.close) { simulation.disturbances.insert(.close) }
    if disturbances.contains(.empty) { simulation.disturbances.insert(.emptyPool) }
    // In half of the seeds, now often, now hardly ever; by the seed alone, whatever worlds there are.
    let dice = Int((run.seed &* 0x9e37_79b9_7f4a_7c15) >> 56)
    if disturbances.contains(.refuse), dice % 2 == 1 { simulation.refusalRate = [20, 50, 500][dice / 2 % 3] }
    return await simulation.observe { world in
      CrashReport.arm()
      // Planted: a program that has another chance in it than the seed's.
      if isAgain, hasOtherChance { await Task.yield() }
      try await run.scenario.body(world, run.plan)
    }
  }

  /// The smallest run not far away from this one in which `look` finds something too, and the end of its trace.
  private func tell(_ run: Run, _ option: String = "", _ look: (Run) async -> String?) async {
    var run = run
    for size in 1..<run.plan.size {
      var smaller = run
      smaller.plan.size = size
      guard await look(smaller) != nil else { continue }
      run = smaller
      break
    }
    for (_, disturbance) in Plan.Disturbances.names {
      var calmer = run
      calmer.plan.disturbances.remove(disturbance)
      if await look(calmer) != nil { run = calmer }
    }
    let report = await self.report(run)
    say("again: \(run.command)\(option)")
    for finding in report.findings { say("  \(finding)") }
    if let error = report.error { say("  it threw: \(error)") }
    say("the last of \(report.steps) steps:")
    for line in report.trace { say("  \(line)") }
  }

  /// What the worlds have left.
  static func clean() { for file in files { unlink(file) } }

  /// Sockets of the worlds.
  private static let files = ["switch"]

  private static var descriptors: Int {
    guard let folder = opendir("/proc/self/fd") else { return 0 }
    defer { closedir(folder) }
    var count = 0
    while readdir(folder) != nil { count += 1 }
    return count
  }
}

private let hasOtherChance = getenv("NETDEV_PLANT").map { String(cString: $0) } == "other-chance"

/// A line that is there as soon as it is said, whatever happens next.
private func say(_ line: String) {
  print(line)
  fflush(nil)
}

/// One run.
struct Run: Sendable {
  let scenario: Scenario
  let seed: UInt64
  var plan: Plan

  /// What replays it, at the repository's root.
  var command: String {
    let missing = Plan.Disturbances.names.filter { !plan.disturbances.contains($0.value) }.map { $0.name }
    return "Simulate/.build/release/Simulate 1 --first \(seed) --world \(scenario.name) --size \(plan.size)"
      + (missing.isEmpty ? "" : " --without " + missing.joined(separator: ","))
  }
}

extension Simulation.Report {
  /// What is wrong, if anything: what the world found, or an error that the program need not expect.
  var finding: String? {
    if let finding = findings.first { return finding }
    guard let error, !isExpected(error) else { return nil }
    return "it threw \(error)"
  }

  /// Of a program or a device that was ended from outside, or of a refused call.
  private func isExpected(_ error: any Error) -> Bool {
    if !isCalm, isOfEnding(error) { return true }
    return refusals > 0 && (isOfEnding(error) || error is NetworkDeviceError || error is LoopError)
  }
}
