internal import LibeventConcurrency
internal import Netdev
internal import Virtio
internal import VirtioNet

/// A ring as the back-end is told of it. The descriptors are borrowed.
struct RingSetup: Sendable {
  let ring: VirtioQueuePlacement
  /// Where both sides begin, of a packed ring in both halves: of what is available, and of what is used. Rings are always laid
  /// anew, so that it is the first index of the format.
  let base: UInt32
  /// Nil for a ring that the back-end polls.
  let kick: CInt?
  let call: CInt
  let error: CInt

  init(_ ring: VirtioQueuePlacement, base: UInt32, kick: CInt?, call: CInt, error: CInt) {
    self.ring = ring
    self.base = base
    self.kick = kick
    self.call = call
    self.error = error
  }

  /// Index of the ring.
  var index: UInt32 { UInt32(truncatingIfNeeded: ring.index) }
}

extension Session {
  /// Shows the memory, in one table or, where the back-end knows slots, region by region.
  func share(_ regions: [MemoryRegion]) async throws(NetworkDeviceError) {
    let bySlots = agreement.protocolFeatures.contains(.configureMemSlots)
    let most = bySlots ? agreement.memorySlots : FrontendMessage.maximumRegions
    guard regions.count <= most else {
      throw NetworkDeviceError(
        .unsupported, "showing memory to \(name)", offered: "\(regions.count) regions, the back-end takes \(most)",
        advice: "use fewer pools with this device")
    }
    guard bySlots else {
      try await ask(.setMemTable(regions))
      return
    }
    for region in regions { try await ask(.addMemReg(region)) }
  }

  /// Sets up the rings and lets the back-end begin: what every ring needs first, then those of the first pairs are enabled, `active` of
  /// them, then DRIVER_OK.
  func start(_ rings: [RingSetup], active: Int = .max) async throws(NetworkDeviceError) {
    for setup in rings {
      let index = setup.index
      try await ask(.setVringNum(ring: index, size: UInt32(clamping: setup.ring.size)))
      try await ask(.setVringBase(ring: index, index: setup.base))
      let addresses = VringAddresses(
        ring: index, descriptors: setup.ring.descriptors, used: setup.ring.device, available: setup.ring.driver)
      try await ask(.setVringAddr(addresses))
      try await ask(.setVringErr(VringDescriptor(ring: index, descriptor: setup.error)))
      // From the kick on the ring counts as started: its base must be asked for to stop it.
      startedRings.append(index)
      try await ask(.setVringKick(VringDescriptor(ring: index, descriptor: setup.kick)))
      try await ask(.setVringCall(VringDescriptor(ring: index, descriptor: setup.call)))
    }
    if agreement.enablesRings {
      for setup in rings {
        guard setup.ring.pair < active else {
          disabledRings.insert(setup.index)
          continue
        }
        try await ask(.setVringEnable(ring: setup.index, isEnabled: true))
      }
    }
    try await setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    // A back-end that does not acknowledge has nevertheless read everything before this question when it answers.
    _ = try await ask(.getFeatures)
    #if Testing
    handshake = loop.now
    #endif
  }

  /// Enables the rings of the first `pairs` pairs, and disables those of the others, in which nothing is.
  func enable(pairs: Int, for command: ControlCommand) async throws(NetworkDeviceError) {
    guard agreement.enablesRings else {
      throw .cannotBeTold(
        command, "the back-end of \(name) does not know protocol features, and so has all of its rings enabled")
    }
    // The last is closed first, and opened last.
    let rings = startedRings.sorted()
    for ring in rings where Int(ring) / 2 < pairs && disabledRings.contains(ring) {
      try await ask(.setVringEnable(ring: ring, isEnabled: true))
      disabledRings.remove(ring)
    }
    for ring in rings.reversed() where Int(ring) / 2 >= pairs && !disabledRings.contains(ring) {
      try await ask(.setVringEnable(ring: ring, isEnabled: false))
      disabledRings.insert(ring)
    }
    // A back-end that does not acknowledge has nevertheless done it when it answers.
    _ = try await ask(.getFeatures)
  }

  /// Stops every started ring and resets the status. When this returns, the back-end touches no memory any more.
  func stop(within limit: Duration) async throws(NetworkDeviceError) {
    let deadline = LoopDeadline(loop, after: limit)
    while let index = startedRings.first {
      let reply = try await ask(.getVringBase(ring: index), within: deadline.remaining)
      guard reply?.vring.ring == index else {
        let error = NetworkDeviceError(
          .broken, "GET_VRING_BASE to \(name)", offered: "an answer for ring \(reply?.vring.ring ?? .max)",
          advice: "see the back-end's own log")
        fail(error)
        throw error
      }
      startedRings.removeFirst()
    }
    try await setStatus([], within: deadline.remaining)
  }
}
