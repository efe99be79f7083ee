import NetdevTesting

/// How large a run is and what disturbs it: what a failing run is shrunk by.
struct Plan: Sendable {
  /// What the seed may do beside sending frames.
  struct Disturbances: OptionSet, Sendable {
    let rawValue: Int
    /// Tasks are cancelled.
    static let cancel = Disturbances(rawValue: 1)
    /// The device is closed in the middle.
    static let close = Disturbances(rawValue: 2)
    /// The device is lost and comes back.
    static let loss = Disturbances(rawValue: 4)
    /// Packets are kept for a while.
    static let keep = Disturbances(rawValue: 8)
    /// Everybody takes his time.
    static let delay = Disturbances(rawValue: 16)
    /// The pool is empty for a while.
    static let empty = Disturbances(rawValue: 32)
    /// System calls are refused, or cut short.
    static let refuse = Disturbances(rawValue: 64)
    static let all: Disturbances = [.cancel, .close, .loss, .keep, .delay, .empty, .refuse]

    static let names: [(name: String, value: Disturbances)] = [
      ("cancel", .cancel), ("close", .close), ("loss", .loss), ("keep", .keep), ("delay", .delay), ("empty", .empty),
      ("refuse", .refuse),
    ]
  }

  /// Frames a flow.
  var size: Int
  var disturbances = Disturbances.all

  /// A pause of up to so many microseconds, now and then.
  func pause(_ world: SimulatedWorld, microseconds: Int = 300) async {
    guard disturbances.contains(.delay), world.chance(oneIn: 4) else { return }
    try? await Task.sleep(for: .microseconds(world.choose(below: microseconds)))
  }
}

/// A program and its devices, in which the seed decides what happens.
struct Scenario: Sendable {
  let name: String
  /// A device that does not confirm its reset keeps the memory that it may still write to.
  var mayQuarantine = false
  let body: @Sendable (SimulatedWorld, Plan) async throws -> Void

  static let all: [Scenario] =
    loopbackScenarios + sharingScenarios + poolScenarios + roomScenarios + turnScenarios + endingScenarios
    + peerScenarios + peerMomentScenarios + receptionScenarios + kernelScenarios + vhostUserScenarios
    + tryingScenarios + loopScenarios
}
