internal import CNetdevSystem
internal import CSimulation
internal import Synchronization

/// A program and its devices in a world of one thread, whose clock and whose order of events come from a seed.
///
/// ```swift
/// try await Simulation(seed: 7).run { world in
///   let device = try await world.open("loopback:?queues=2")
///   …
/// }
/// ```
///
/// In the world a sleep takes no time, and whatever could happen at the same time happens in an order that the seed chooses. The
/// same seed gives the same run, to the byte of its trace. The world looks for mistakes by itself (see ``Report/findings``).
/// One world at a time lives in a process: another one waits for its end.
public struct Simulation: Sendable {
  /// The bounds of a run.
  public struct Limits: Sendable {
    /// Steps after which a run counts as one that does not end.
    public var steps: UInt64 = 2_000_000
    /// Steps one after the other without a time that somebody waited for.
    public var stepsInPlace = 200_000
    /// Turns of a loop, one after the other, in which it does nothing, without a time that somebody waited for.
    public var idleTurns = 100
    /// Nanoseconds: a timer that is due later never is.
    public var nanoseconds: UInt64 = 400 * 24 * 3600 * 1_000_000_000
    /// Turns that are held up at a time, each while others go on.
    public var depth = 2
    /// Events that the trace keeps in words.
    public var traceLines = 60
    /// Milliseconds of real time that another thread's mistake is waited for before a wait counts as one for ever.
    public var arrivalMilliseconds = 1000
    /// Milliseconds of real time in one step after which a line on the standard error says that the program does not come back.
    public var stepMilliseconds = 10_000

    /// The defaults.
    public init() {}
  }

  /// What a world does to its program, at any moment that the seed chooses, in some of the seeds.
  public struct Disturbances: OptionSet, Sendable {
    /// Their bits.
    public let rawValue: Int
    /// Disturbances by their bits.
    public init(rawValue: Int) { self.rawValue = rawValue }
    /// The task that runs the body is cancelled, or one that was begun with `SimulatedWorld.task`.
    public static let cancellation = Disturbances(rawValue: 1)
    /// A device that was opened by the world is closed.
    public static let close = Disturbances(rawValue: 2)
    /// All buffers of such a device's pool are taken, for a while.
    public static let emptyPool = Disturbances(rawValue: 4)
  }

  /// What came of a run.
  public struct Report: Sendable, CustomStringConvertible {
    /// The seed.
    public let seed: UInt64
    /// What the world found wrong, first things first: tasks that wait for ever, loops and sleeps that are left, loops that
    /// spin, escapes to other threads, buffers that did not come home. Empty if all is well.
    public let findings: [String]
    /// What the program threw.
    public let error: (any Error)?
    /// What happened of what may (`SimulatedWorld.mayHappen`), in order.
    public let happened: [String]
    /// System calls that were refused or cut short.
    public let refusals: Int
    /// Nothing of all that was more than harmless (`SimulatedWorld.isCalm`): the program has nothing to excuse itself by.
    public let isCalm: Bool
    /// The last events, a line each.
    public let trace: [String]
    /// A number that stands for the whole trace.
    public let fingerprint: UInt64
    /// Steps of the run.
    public let steps: UInt64
    /// What its clock showed at the end, from its beginning.
    public let duration: Duration

    /// The seed and what the body threw, what happened to it, what was found, and the last events: a line each.
    public var description: String {
      let outcome = error.map { "the body threw: \($0)" }
      var lines = outcome.map { [$0] } ?? []
      if !happened.isEmpty { lines.append("what happened: \(happened.joined(separator: ", "))") }
      if refusals > 0 { lines.append("calls refused or cut short: \(refusals)") }
      lines += findings.map { error == nil && happened.isEmpty && refusals == 0 ? $0 : "found: \($0)" }
      if lines.isEmpty { lines = ["nothing was found"] }
      lines[0] = "seed \(seed): \(lines[0])"
      return (lines + ["the last of \(steps) steps, in \(duration):"] + trace).joined(separator: "\n")
    }
  }

  /// A run in which something was wrong.
  public struct Failure: Error, CustomStringConvertible {
    /// What came of the run.
    public let report: Report

    /// That of its report.
    public var description: String { report.description }
  }

  /// The seed.
  public let seed: UInt64
  /// The bounds.
  public var limits = Limits()
  /// What else happens to the program; nothing, unless it is asked for.
  public var disturbances: Disturbances = []
  /// One system call of the library in so many is refused with an error that it may have, or cut short; 0 for none. Only a build
  /// with the package trait `Testing` can; in another one that is all that a run finds.
  public var refusalRate = 0

  /// The run of this seed.
  public init(seed: UInt64) { self.seed = seed }

  /// Runs `body` in a world of its own, and everything that comes of it to its end.
  ///
  /// - Throws: `Failure` with what the world found wrong, or what `body` throws.
  public func run<Result: Sendable>(
    _ body: @escaping @Sendable (SimulatedWorld) async throws -> Result
  ) async throws -> Result {
    let outcome = Mutex<Result?>(nil)
    let kept = Kept(outcome)
    let report = await observe { world in
      let result = try await body(world)
      kept.value.withLock { $0 = result }
    }
    guard report.findings.isEmpty else { throw Failure(report: report) }
    if let error = report.error { throw error }
    guard let result = kept.value.withLock({ $0 }) else { throw Failure(report: report) }
    return result
  }

  private final class Kept<Value: Sendable>: Sendable {
    let value: Mutex<Value?>
    init(_ value: consuming Mutex<Value?>) { self.value = value }
  }

  /// The same, for whoever wants to see what came of it.
  public func observe(_ body: @escaping @Sendable (SimulatedWorld) async throws -> Void) async -> Report {
    guard SimulationThread.current == nil else {
      return refused("a world in a world: one must be over before the next one begins")
    }
    guard refusalRate == 0 || netdev_fault_is_built() else {
      return refused(
        "refusalRate does nothing in this build: only one of swift-netdev with the trait Testing refuses calls")
    }
    guard SimulationThread.isInstalled else { return refused("the runtime of this process cannot be taken over") }
    let schedule = WorldSchedule(seed: seed, limits: limits, disturbances: disturbances)
    schedule.faults.rate = refusalRate
    let world = SimulatedWorld(schedule)
    // On this thread: the body has the task-local values of its caller, among them which test this is.
    let program = Program(world, body)
    return await withCheckedContinuation { continuation in
      if SimulationThread.start({ continuation.resume(returning: live(world, program)) }) { return }
      program.abandon(schedule)
      continuation.resume(returning: refused("there is no thread for the world"))
    }
  }

  private func refused(_ finding: String) -> Report {
    Report(
      seed: seed, findings: [finding], error: nil, happened: [], refusals: 0, isCalm: true, trace: [], fingerprint: 0,
      steps: 0, duration: .zero)
  }

  @inline(never) private func live(_ world: SimulatedWorld, _ program: Program) -> Report {
    let schedule = world.schedule
    let began = schedule.now
    SimulationThread.with(schedule) {
      world.begin(program)
      schedule.run { world.isOver }
      if schedule.findings.isEmpty { schedule.findLeftovers() }
      if schedule.findings.isEmpty { world.findLeftovers() }
      schedule.end()
      if schedule.findings.isEmpty { schedule.findOpenDescriptors() }
      simulation_descriptors_forget()
    }
    return Report(
      seed: seed, findings: schedule.findings, error: world.error, happened: schedule.incidents.happened,
      refusals: schedule.faults.count, isCalm: schedule.isCalm, trace: schedule.trace.lines,
      fingerprint: schedule.trace.fingerprint, steps: schedule.steps,
      duration: .nanoseconds(Int64(clamping: schedule.now - began)))
  }
}
