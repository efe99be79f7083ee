internal import LibeventConcurrency
internal import Netdev

/// What a world does to its program beside the order of events: at steps that the seed chooses, between any two others.
final class WorldIncidents {
  private struct Incident {
    let step: UInt64
    let name: String
    let isHarmless: Bool
    let action: () -> Void
  }

  private var coming: [Incident] = []
  /// Those that have happened, in order.
  private(set) var happened: [String] = []
  /// One of them was not harmless.
  private(set) var hasHarmed = false

  /// At some step soon or late, if the run lasts so long. Most runs that a program makes are short: half of them happen within the
  /// first hundred steps from now.
  func add(
    _ name: String, isHarmless: Bool, from steps: UInt64, _ random: inout SeededRandom, _ action: @escaping () -> Void
  ) {
    let step = steps + 1 + UInt64(random.below(1 << random.below(13)))
    coming.append(Incident(step: step, name: name, isHarmless: isHarmless, action: action))
  }

  /// Those of this step.
  func next(at step: UInt64) -> (name: String, action: () -> Void)? {
    guard let place = coming.firstIndex(where: { $0.step <= step }) else { return nil }
    let incident = coming.remove(at: place)
    happened.append(incident.name)
    if !incident.isHarmless { hasHarmed = true }
    return (incident.name, incident.action)
  }

  /// The program is over: nothing happens to it any more, and nothing is held for that.
  func end() { coming = [] }
}

// MARK: - What may happen to a program

extension SimulatedWorld {
  /// Something that happens at a step that the seed chooses, between any two others and in the middle of a turn, unless the run ends
  /// before it: what it does is done at once, on no loop.
  ///
  /// - Parameters:
  ///   - name: its word in the trace and in the report.
  ///   - isHarmless: whether the program must do all it is for in spite of it: it loses nothing, and ends nothing (`isCalm`).
  ///   - action: what happens.
  public func mayHappen(_ name: String, isHarmless: Bool = false, _ action: @escaping () -> Void) {
    guard schedule.expectHere("says what may happen") else { return }
    schedule.incidents.add(name, isHarmless: isHarmless, from: schedule.steps, &schedule.random, action)
  }

  /// What has happened so far of what may, in order.
  public var happened: [String] { schedule.mayRead("reads what has happened") ? schedule.incidents.happened : [] }

  /// True while nothing has happened but what is harmless, and no system call was refused or cut short: then a program must do all
  /// that it is for. A pool that is empty for a while is harmless, as its senders wait.
  public var isCalm: Bool { schedule.mayRead("asks whether the world is calm") && schedule.isCalm }

  /// System calls that have been refused or cut short so far.
  public var refusals: Int { schedule.mayRead("counts the world's refusals") ? schedule.faults.count : 0 }

  /// The program's task is cancelled.
  func mayCancel(_ task: Task<Void, Never>) {
    guard schedule.disturbances.contains(.cancellation), chance(oneIn: 4) else { return }
    mayHappen("the program is cancelled") { task.cancel() }
  }

  /// A task of the program's, detached, which the world may cancel at any moment if it may cancel the program. Trace and findings call
  /// it by its name, which is the task's own, too.
  public func task<Result: Sendable>(
    _ name: String, _ body: @escaping @Sendable () async throws -> Result
  ) -> Task<Result, any Error> {
    guard schedule.expectHere("begins a task of the world's") else {
      return Task<Result, any Error>.detached(name: name) { try await body() }
    }
    let place = schedule.begin(task: name)
    let task = Task<Result, any Error>.detached(name: name) { [schedule] in
      defer { schedule.end(task: place) }
      return try await body()
    }
    schedule.nameNewest(name)
    if schedule.disturbances.contains(.cancellation), chance(oneIn: 8) {
      mayHappen("\(name) is cancelled") { task.cancel() }
    }
    return task
  }

  /// A device is closed, and its pool empty for a while, or several times.
  func mayDisturb(_ device: NetworkDevice) {
    if schedule.disturbances.contains(.close), chance(oneIn: 4) {
      mayHappen("a device is closed") { [weak device] in
        guard let device else { return }
        Task.detached { try? await device.close() }
      }
    }
    guard schedule.disturbances.contains(.emptyPool) else { return }
    while chance(oneIn: 3) {
      mayHappen("a pool is empty", isHarmless: true) { [weak pool = device.pool, self] in if let pool { empty(pool) } }
    }
  }

  private func empty(_ pool: PacketPool) {
    let bytes = [UInt8](repeating: 0, count: 64)
    var packets: [Packet] = []
    while let packet = try? Packet(copying: bytes, in: pool), packet.isInPool { packets.append(packet) }
    let time = Duration.microseconds(choose(below: 5000))
    Task.detached { [packets] in
      try? await Task.sleep(for: time)
      withExtendedLifetime(packets) {}
    }
  }

  func spareFaults(of loop: LoopExecutor) { schedule.faults.spare(loop) }
}
