internal import CNetdevSystem
internal import LibeventConcurrency
internal import Logging
public import Netdev
internal import Synchronization
internal import Virtio

// A device that was lost is looked for until it is there again, or until somebody closes it. Programs notice nothing but the
// pause, and the link's events.
extension VirtioNetDriver {
  /// Buffers that a lost device could still write to.
  struct Quarantined: Sendable {
    /// Number of the loss.
    var generation: Int
    var loss: VirtioLoss
    var buffers: Int
  }

  /// As the transport has it.
  public var recovery: RecoveryPauses? {
    transport.recovery.map { RecoveryPauses(first: $0.firstDelay, longest: $0.longestDelay) }
  }

  /// A device that is lost, a lost one that is gone, a configuration that has changed.
  public func attend() async throws(NetworkDeviceError) {
    try await noteLoss()
    try await checkControl()
    await endQuarantines()
    if let agreed = state.withLock({ $0.agreed }),
      let config = try await transport.changedConfig(offered: agreed.features)
    {
      noteStatus(config, agreed.features)
    }
    // Who was lost while it was asked.
    try await noteLoss()
  }

  private func noteLoss() async throws(NetworkDeviceError) {
    guard let loss = await transport.loss() else { return }
    #if Testing
    if unsafe netdev_fault_is_planted("ignored-loss"), state.withLock({ $0.isFresh }) { return }
    #endif
    state.withLock { state in
      state.losses += 1
      state.loss = loss
    }
    throw loss.cause
  }

  /// Gives back what lost devices could still write to that are gone at last.
  func endQuarantines() async {
    for quarantined in state.withLock({ $0.quarantines }) {
      guard await quarantined.loss.isGone(.zero) else { continue }
      let generation = quarantined.generation
      state.withLock { $0.quarantines.removeAll { $0.generation == generation } }
      _ = await tell { $0.endQuarantine(generation) }
      logger.notice(
        "the lost device is gone, its quarantine is over",
        metadata: ["device": "\(transport.name)", "loss": "\(generation)"])
    }
  }

  /// Nothing is published to the lost device, and nothing is heard from it.
  public func suspend() async {
    let (loss, name) = (state.withLock { $0.loss }, transport.name)
    await endControl(loss?.cause ?? NetworkDeviceError(.linkDown, name, offered: "the device is lost"))
    _ = await tell { $0.suspend() }
  }

  /// Reaches the device, agrees on what was agreed before, and moves everything that was in the old rings into new ones.
  public func recover() async throws(NetworkDeviceError) {
    let (loss, generation) = state.withLock { ($0.loss, $0.losses) }
    guard let loss, let policy = transport.recovery else {
      throw NetworkDeviceError(.unsupported, "reopening \(transport.name)", offered: "a device that is not lost")
    }
    try await setUp { [self] () async throws(NetworkDeviceError) in
      try await agreeAgain()
    }
    let isGone = await loss.isGone(.seconds(1))
    if !isGone { try checkQuarantine() }
    try await transport.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    if let agreed = state.withLock({ $0.agreed }) { try await beginControl(agreed) }
    // From here on it is the new device that knows the buffers. A loop that does not answer now resumes its pair later, in order.
    state.withLock { $0.loss = nil }
    #if Testing
    state.withLock { $0.handshake = $0.control?.loop.now ?? 0 }
    #endif
    let terms = ResumeTerms(isGone: isGone, generation: generation, inFlight: policy.inFlight, cause: loss.cause)
    let kept = await tell(within: Self.loopPatience) { $0.resume(terms) }
    guard !isGone, let agreed = state.withLock({ $0.agreed }) else { return }
    // A pair that has not answered may keep a whole ring.
    let unheard = (state.withLock { $0.pairs.count } - kept.count) * Int(agreed.layout.size)
    noteQuarantine(Quarantined(generation: generation, loss: loss, buffers: kept.reduce(unheard, +)))
  }

  /// How long the pairs' loops may take to lay their rings anew, or to go on with them.
  private static let loopPatience = Duration.seconds(5)

  private func agreeAgain() async throws(NetworkDeviceError) {
    let (known, memory, pool) = state.withLock { ($0.agreed, $0.memory, $0.pool) }
    guard let known, let memory, let pool else {
      throw NetworkDeviceError(.invalidConfiguration, "reopening \(transport.name)", advice: "call start first")
    }
    let (_, config) = try await agree(on: known.features)
    let pairs = try await offeredPairs(config, known.features)
    guard pairs >= known.pairs else { throw lacking("\(known.pairs - pairs) of \(known.pairs) queue pairs") }
    guard (config.mtu.map { Int($0) } ?? known.mtu) >= known.mtu else { throw lacking("an MTU of \(known.mtu)") }
    let size = Int(known.layout.size)
    if let largest = try await transport.maximumQueueSize(), largest < size {
      throw lacking("queues of \(size) descriptors, where it has \(largest)")
    }
    let shared = try await share(pool, known)
    guard shared.poolAddress == memory.poolAddress else { throw lacking("the pool's address") }
    state.withLock { $0.memory = shared }
    await endControl(NetworkDeviceError(.linkDown, transport.name, offered: "the device is lost"))
    try await makeControlQueue(known, shared)
    let laid = await tell(within: Self.loopPatience) { pair -> NetworkDeviceError? in
      do throws(NetworkDeviceError) {
        try pair.layAnew(shared.rings)
        return nil
      } catch {
        return error
      }
    }
    if let error = laid.compactMap({ $0 }).first { throw error }
    guard laid.count == state.withLock({ $0.pairs.count }) else {
      throw NetworkDeviceError(
        .timedOut, "reopening \(transport.name)", offered: "the loop of a queue pair did not answer",
        advice: "look for a job that blocks the loop")
    }
  }

  func lacking(_ what: String) -> NetworkDeviceError {
    NetworkDeviceError(
      .unsupported, "reopening \(transport.name)", offered: "the device came back without something: \(what)",
      advice: "start it as it was before, or open it anew")
  }
}

// MARK: - Quarantine

extension VirtioNetDriver {
  /// Lost devices that are not gone, at most, whatever few buffers they have.
  private static let maximumQuarantines = 64

  /// A device that drops its connection again and again, and lives, would take one ring of buffers after the other out of use. What
  /// is left must fill every receive ring and every transmit ring: else the device ends, and says why.
  private func checkQuarantine() throws(NetworkDeviceError) {
    let (quarantines, agreed, pool) = state.withLock { ($0.quarantines, $0.agreed, $0.pool) }
    guard let agreed, let pool else { return }
    let slots = pool.configuration.slots
    let rings = agreed.pairs * Int(agreed.layout.size)
    let kept = quarantines.reduce(0) { $0 + $1.buffers }
    guard kept + 3 * rings > slots || quarantines.count >= Self.maximumQuarantines else { return }
    throw NetworkDeviceError(
      .resetNotConfirmed, "reopening \(transport.name)",
      offered:
        "\(kept) of \(slots) buffers, of \(quarantines.count) losses, are in quarantine, and \(rings) more would be: "
        + "the process behind the device has dropped the connection, still runs, and may still write to them",
      advice: "end that process whenever it disconnects, or use a larger pool")
  }

  /// The device is closed while lost ones that are not gone could still write to some buffers: nobody asks any more whether they
  /// are gone, and the pool does not have these buffers back.
  func noteLostForGood(_ quarantines: [Quarantined]) {
    let buffers = quarantines.reduce(0) { $0 + $1.buffers }
    guard buffers > 0 else { return }
    logger.warning(
      "closed while a lost device could still write to some buffers: the pool does not have them back",
      metadata: ["device": "\(transport.name)", "losses": "\(quarantines.count)", "buffers": "\(buffers)"])
  }

  private func noteQuarantine(_ quarantined: Quarantined) {
    state.withLock { $0.quarantines.append(quarantined) }
    guard quarantined.buffers > 0 else { return }
    logger.warning(
      "buffers that the lost device could still write to are quarantined until it is known to be gone",
      metadata: [
        "device": "\(transport.name)", "loss": "\(quarantined.generation)", "buffers": "\(quarantined.buffers)",
      ])
  }
}
