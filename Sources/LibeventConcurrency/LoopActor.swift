/// An actor that lives on a loop: for state that the queues of one loop share, without a lock and without a hop.
///
/// ```swift
/// actor Stations: LoopActor {
///   nonisolated let loop: LoopExecutor
///   private var ports: [MACAddress: Int] = [:]
///   init(_ loop: LoopExecutor) { self.loop = loop }
///   func learn(_ station: MACAddress, at port: Int) { ports[station] = port }
/// }
/// ```
///
/// All that it has to say is which loop. Whoever runs on that loop, the queues of all devices opened together, calls it at the price
/// of a comparison: `await stations.learn(…)` goes on in the same turn, and nothing else runs in between. Calls from elsewhere hop
/// to the loop, as with any actor, so what it holds is safe wherever it is used from.
///
/// Its own methods are on the loop too: what has a fast path there (`queue.packets`, `submit(_:)`, `trySubmit(_:)`) takes it. A method
/// that awaits something which suspends lets others in meanwhile, as with any actor.
///
/// One such actor serves one loop. Devices with several queue pairs have as many loops, and need one a loop, or state that
/// another loop may ask for by a hop.
public protocol LoopActor: Actor {
  /// The loop that the actor lives on.
  nonisolated var loop: LoopExecutor { get }
}

extension LoopActor {
  /// The loop's executor.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
}

extension LoopActor {
  /// Calls `body` on the actor's loop every so often, the first time after `interval`, until the repetition is cancelled or the actor
  /// goes.
  ///
  /// ```swift
  /// try every(.seconds(10)) { $0.forgetSilentStations() }
  /// ```
  ///
  /// The repetition does not keep the actor.
  ///
  /// - Parameters:
  ///   - interval: from one call to the next; one shorter than a millisecond counts as one.
  ///   - body: called with the actor, on its loop, which it holds while it runs.
  /// - Throws: what the system refuses.
  @discardableResult public func every(
    _ interval: Duration, _ body: @escaping @Sendable (isolated Self) -> Void
  ) throws(LoopError) -> LoopRepetition {
    let ends = End()
    let repetition = try loop.every(interval) { [weak self] in
      guard let self else { return ends.repetition?.cancel() ?? () }
      self.assumeIsolated { body($0) }
    }
    ends.repetition = repetition
    return repetition
  }
}

/// What a repetition whose actor has gone ends.
private final class End {
  var repetition: LoopRepetition?
}
