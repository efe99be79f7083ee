internal import Logging
internal import Netdev
internal import Synchronization
internal import Virtio

// A device that was lost is looked for until it is there again, or until somebody closes it. Programs notice nothing but the
// pause, and the link's events.
extension VirtioNetDriver {
  /// What is under way.
  struct Recovery {
    /// Works through the losses, one after the other; nil while the device is there.
    var task: Task<Void, Never>?
    var losses: [VirtioLoss] = []
    /// Number of the present loss.
    var generation = 0
    /// Tasks that wait for lost devices to be gone, by the loss.
    var watches: [Int: Task<Void, Never>] = [:]
    var isClosing = false
  }

  func noteLoss(_ loss: VirtioLoss) {
    state.withLock { state in
      guard !state.recovery.isClosing else { return }
      state.recovery.losses.append(loss)
      if state.recovery.task == nil { state.recovery.task = Task { await self.recover() } }
    }
  }

  /// No loss leads to anything any more; what is under way ends first.
  func endRecovery() async {
    let (task, watches) = state.withLock { state in
      state.recovery.isClosing = true
      return (state.recovery.task, state.recovery.watches)
    }
    task?.cancel()
    await task?.value
    for watch in watches.values { watch.cancel() }
    for watch in watches.values { await watch.value }
  }

  private func recover() async {
    while true {
      let next = state.withLock { state -> (loss: VirtioLoss, generation: Int)? in
        guard !state.recovery.losses.isEmpty, !state.recovery.isClosing else {
          state.recovery.task = nil
          return nil
        }
        state.recovery.generation += 1
        return (state.recovery.losses.removeFirst(), state.recovery.generation)
      }
      guard let next else { return }
      await recover(from: next.loss, generation: next.generation)
    }
  }

  private func recover(from loss: VirtioLoss, generation: Int) async {
    let pairs = state.withLock { $0.pairs }
    for pair in pairs { await pair.suspend() }
    tellOfLoss(loss.cause)
    logger.debug(
      "the device is lost",
      metadata: ["device": "\(transport.name)", "loss": "\(generation)", "cause": "\(loss.cause)"])
    guard let policy = transport.recovery else {
      for pair in pairs { await pair.fail(loss.cause) }
      return
    }
    var delay = policy.firstDelay
    while !Task.isCancelled {
      do throws(NetworkDeviceError) {
        try await reconnect(loss, generation, policy, pairs)
        logger.debug("the device is back", metadata: ["device": "\(transport.name)", "loss": "\(generation)"])
        tellOfReturn()
        return
      } catch {
        logger.debug(
          "the device is not back yet",
          metadata: ["device": "\(transport.name)", "error": "\(error)", "again": "\(delay)"])
        // What the device lacks it will lack at the next attempt too; everything else may pass.
        if [.unsupported, .invalidConfiguration].contains(error.code) {
          for pair in pairs { await pair.fail(error) }
          return
        }
      }
      try? await Task.sleep(for: delay)
      delay = min(delay * 2, policy.longestDelay)
    }
  }

  /// The link is down with the device, unless it was before.
  private func tellOfLoss(_ cause: NetworkDeviceError) {
    let onLinkChange = state.withLock { state -> (@Sendable (LinkChange) -> Void)? in
      state.isLost = true
      return state.saysLinkIsUp ? state.onLinkChange : nil
    }
    onLinkChange?(.down(cause: cause))
  }

  /// The device is back, and its link is what it says now.
  private func tellOfReturn() {
    let onLinkChange = state.withLock { state -> (@Sendable (LinkChange) -> Void)? in
      state.isLost = false
      return state.saysLinkIsUp ? state.onLinkChange : nil
    }
    onLinkChange?(.up)
  }

  /// Reaches the device, agrees on what was agreed before, and moves everything that was in the old rings into new ones.
  private func reconnect(
    _ loss: VirtioLoss, _ generation: Int, _ policy: VirtioRecovery, _ pairs: [VirtioQueuePair.Reference]
  ) async throws(NetworkDeviceError) {
    try await transport.connect()
    // Whoever was reached just now has nothing to confirm.
    try await transport.setStatus([])
    try await transport.setStatus(.acknowledge)
    try await transport.setStatus([.acknowledge, .driver])
    let rings = try await agreeAgain()
    for pair in pairs { try await pair.layAnew(rings) }
    let isGone = await loss.isGone(.seconds(1))
    try await transport.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    let terms = ResumeTerms(isGone: isGone, generation: generation, inFlight: policy.inFlight, cause: loss.cause)
    var kept = 0
    for pair in pairs { kept += await pair.resume(terms) }
    guard !isGone else { return }
    if kept > 0 {
      logger.warning(
        "buffers that the lost device could still write to are quarantined until it is known to be gone",
        metadata: ["device": "\(transport.name)", "loss": "\(generation)", "buffers": "\(kept)"])
    }
    watch(loss, generation, pairs)
  }

  private func agreeAgain() async throws(NetworkDeviceError) -> SharedRingMemory {
    let (agreed, memory, pool) = state.withLock { ($0.agreed, $0.memory, $0.pool) }
    guard let agreed, let memory, let pool else {
      throw NetworkDeviceError(.invalidConfiguration, "reopening \(transport.name)", advice: "call start first")
    }
    let offered = try await transport.offeredFeatures()
    guard offered.contains(agreed.features) else {
      throw lacking("the features \(agreed.features.subtracting(offered))")
    }
    try await transport.setFeatures(agreed.features)
    let wanted: DeviceStatus = [.acknowledge, .driver, .featuresOK]
    try await transport.setStatus(wanted)
    guard try await transport.status().contains(.featuresOK) else { throw lacking("it refused \(agreed.features)") }
    let config = try await transport.readConfig(offered: agreed.features)
    noteStatus(config)
    let pairs = agreed.features.contains(.mq) ? Int(config.maximumPairs ?? 1) : 1
    guard pairs >= agreed.pairs else { throw lacking("\(agreed.pairs - pairs) of \(agreed.pairs) queue pairs") }
    guard (config.mtu.map { Int($0) } ?? agreed.mtu) >= agreed.mtu else { throw lacking("an MTU of \(agreed.mtu)") }
    guard try await transport.share(pool) == memory.poolAddress else { throw lacking("the pool's address") }
    let rings = try transport.makeRingMemory(bytes: agreed.pairs * agreed.memoryMap.totalBytes)
    state.withLock { $0.memory = Memory(poolAddress: memory.poolAddress, rings: rings) }
    return rings
  }

  private func lacking(_ what: String) -> NetworkDeviceError {
    NetworkDeviceError(
      .unsupported, "reopening \(transport.name)", offered: "the device came back without something: \(what)",
      advice: "start it as it was before, or open it anew")
  }

  /// Gives back what the lost device could still write to, when it is gone at last.
  private func watch(_ loss: VirtioLoss, _ generation: Int, _ pairs: [VirtioQueuePair.Reference]) {
    state.withLock { state in
      guard !state.recovery.isClosing else { return }
      state.recovery.watches[generation] = Task {
        let isGone = await loss.isGone(.seconds(86_400 * 365))
        if isGone {
          for pair in pairs { await pair.endQuarantine(generation) }
          self.logger.notice(
            "the lost device is gone, its quarantine is over",
            metadata: ["device": "\(self.transport.name)", "loss": "\(generation)"])
        }
        self.state.withLock { _ = $0.recovery.watches.removeValue(forKey: generation) }
      }
    }
  }
}
