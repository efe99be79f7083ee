extension DriverConformance {
  /// One rule of the seam, and how it is checked.
  public enum Check: String, Sendable, Hashable, CaseIterable {
    /// A device is what its information says: name, address, MTU, queue pairs, ring; a wish it cannot fulfil is
    /// refused.
    case opensAsPromised
    /// After start, reset may be called at any time and more than once, and shutDown ends the driver whatever came
    /// before.
    case resetsAtAnyTime
    /// Frames of every length, from the wire's shortest to MTU + 14 bytes, come back byte for byte.
    case framesUnchanged
    /// A frame goes out from its first byte, wherever in its buffer that is.
    case frameStart
    /// A frame that lies in several buffers goes out whole, once.
    case severalBuffers
    /// The frames of a queue leave and arrive in the order in which they were submitted.
    case keepsOrder
    /// Bursts of 1 to 64 frames go out, and are received, whole.
    case burstsOfAllSizes
    /// More frames than the ring holds wait for room, none is lost, and the ring holds as many as the driver says.
    case fullRingWaits
    /// A frame longer than MTU + 14 bytes is refused with frameTooLong; its neighbours are sent.
    case refusesTooLongFrames
    /// A packet of another pool is sent, from a copy in the device's pool.
    case foreignPackets
    /// A packet may be in flight any number of times at once; each of them goes out and is released.
    case sharedPackets
    /// Transmitting changes no byte of a frame, and no byte of a buffer that somebody else holds too.
    case leavesBuffersAlone
    /// A received packet keeps its bytes as long as somebody holds it, whatever else is received meanwhile.
    case keptPackets
    /// Every submitted frame is released exactly once.
    case completesOnce
    /// A released buffer is reported although nothing is sent or received after it.
    case releaseIsAnEvent
    /// A loop that sleeps is woken by the first frame that comes.
    case wakesFromIdle
    /// What comes between the last look and arming is reported by arm, or by an interrupt.
    case looksAgainAfterArming
    /// With nothing to do the loop sleeps, although somebody waits for frames.
    case sleepsWhenIdle
    /// A send that is cancelled while it waits for room is never sent; those before it are, once.
    case cancelledSendIsNotSent
    /// Cancelling run ends the device although frames are in flight, and every send returns.
    case cancelledRunEnds
    /// Closing with sends in flight completes or fails each of them, once, and gives back every buffer.
    case closesWithSendsInFlight
    /// When a queue breaks, run throws the cause and the device is reset as at any other end.
    case brokenEndIsThrown
    /// At the end the driver gives back every empty buffer it was given, each once.
    case returnsEveryBuffer
    /// Once reset has returned, nothing writes to a buffer any more, although frames were on their way.
    case quietAfterReset
    /// A device can be opened and closed again and again on one pool; nothing is left behind.
    case opensAgain
    /// When the pool has run dry and buffers come back, reception goes on.
    case goesOnAfterStarving
    /// Each queue pair works on a loop of its own, and its frames stay its own.
    case severalPairs
    /// The counts of frames and bytes are those of the traffic.
    case statisticsAgree
    /// Where the device's own side tells what it has done, that is what its driver has.
    case peerAgrees
  }
}

extension DriverConformance.Check {
  /// The rule, in one sentence.
  public var rule: String {
    switch self {
    case .opensAsPromised:
      "A device is what its information says: name, address, MTU, queue pairs, ring; a wish it cannot fulfil is refused."
    case .resetsAtAnyTime:
      "After start, reset may be called at any time and more than once, and shutDown ends the driver whatever came before."
    case .framesUnchanged:
      "Frames of every length, from the wire's shortest to MTU + 14 bytes, come back byte for byte."
    case .frameStart:
      "A frame goes out from its first byte, wherever in its buffer that is."
    case .severalBuffers:
      "A frame that lies in several buffers goes out whole, once."
    case .keepsOrder:
      "The frames of a queue leave and arrive in the order in which they were submitted."
    case .burstsOfAllSizes:
      "Bursts of 1 to 64 frames go out, and are received, whole."
    case .fullRingWaits:
      "More frames than the ring holds wait for room, none is lost, and the ring holds as many as the driver says."
    case .refusesTooLongFrames:
      "A frame longer than MTU + 14 bytes is refused with frameTooLong; its neighbours are sent."
    case .foreignPackets:
      "A packet of another pool is sent, from a copy in the device's pool."
    case .sharedPackets:
      "A packet may be in flight any number of times at once; each of them goes out and is released."
    case .leavesBuffersAlone:
      "Transmitting changes no byte of a frame, and no byte of a buffer that somebody else holds too."
    case .keptPackets:
      "A received packet keeps its bytes as long as somebody holds it, whatever else is received meanwhile."
    case .completesOnce:
      "Every submitted frame is released exactly once."
    case .releaseIsAnEvent:
      "A released buffer is reported although nothing is sent or received after it."
    case .wakesFromIdle:
      "A loop that sleeps is woken by the first frame that comes."
    case .looksAgainAfterArming:
      "What comes between the last look and arming is reported by arm, or by an interrupt."
    case .sleepsWhenIdle:
      "With nothing to do the loop sleeps, although somebody waits for frames."
    case .cancelledSendIsNotSent:
      "A send that is cancelled while it waits for room is never sent; those before it are, once."
    case .cancelledRunEnds:
      "Cancelling run ends the device although frames are in flight, and every send returns."
    case .closesWithSendsInFlight:
      "Closing with sends in flight completes or fails each of them, once, and gives back every buffer."
    case .brokenEndIsThrown:
      "When a queue breaks, run throws the cause and the device is reset as at any other end."
    case .returnsEveryBuffer:
      "At the end the driver gives back every empty buffer it was given, each once."
    case .quietAfterReset:
      "Once reset has returned, nothing writes to a buffer any more, although frames were on their way."
    case .opensAgain:
      "A device can be opened and closed again and again on one pool; nothing is left behind."
    case .goesOnAfterStarving:
      "When the pool has run dry and buffers come back, reception goes on."
    case .severalPairs:
      "Each queue pair works on a loop of its own, and its frames stay its own."
    case .statisticsAgree:
      "The counts of frames and bytes are those of the traffic."
    case .peerAgrees:
      "Where the device's own side tells what it has done, that is what its driver has."
    }
  }

  /// What driver and peer must be able to do for this check to apply.
  public var needs: Set<DriverConformance.Capability> {
    switch self {
    case .wakesFromIdle, .looksAgainAfterArming, .quietAfterReset: [.peerHolds]
    case .severalPairs: [.severalPairs]
    default: []
    }
  }

  func perform(_ trial: ConformanceTrial) async throws {
    switch self {
    case .opensAsPromised: try await trial.opensAsPromised()
    case .resetsAtAnyTime: try await trial.resetsAtAnyTime()
    case .framesUnchanged: try await trial.framesUnchanged()
    case .frameStart: try await trial.frameStart()
    case .severalBuffers: try await trial.severalBuffers()
    case .keepsOrder: try await trial.keepsOrder()
    case .burstsOfAllSizes: try await trial.burstsOfAllSizes()
    case .fullRingWaits: try await trial.fullRingWaits()
    case .refusesTooLongFrames: try await trial.refusesTooLongFrames()
    case .foreignPackets: try await trial.foreignPackets()
    case .sharedPackets: try await trial.sharedPackets()
    case .leavesBuffersAlone: try await trial.leavesBuffersAlone()
    case .keptPackets: try await trial.keptPackets()
    case .completesOnce: try await trial.completesOnce()
    case .releaseIsAnEvent: try await trial.releaseIsAnEvent()
    case .wakesFromIdle: try await trial.wakesFromIdle()
    case .looksAgainAfterArming: try await trial.looksAgainAfterArming()
    case .sleepsWhenIdle: try await trial.sleepsWhenIdle()
    case .cancelledSendIsNotSent: try await trial.cancelledSendIsNotSent()
    case .cancelledRunEnds: try await trial.cancelledRunEnds()
    case .closesWithSendsInFlight: try await trial.closesWithSendsInFlight()
    case .brokenEndIsThrown: try await trial.brokenEndIsThrown()
    case .returnsEveryBuffer: try await trial.returnsEveryBuffer()
    case .quietAfterReset: try await trial.quietAfterReset()
    case .opensAgain: try await trial.opensAgain()
    case .goesOnAfterStarving: try await trial.goesOnAfterStarving()
    case .severalPairs: try await trial.severalPairs()
    case .statisticsAgree: try await trial.statisticsAgree()
    case .peerAgrees: try await trial.peerAgrees()
    }
  }
}
