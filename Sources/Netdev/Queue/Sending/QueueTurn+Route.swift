internal import CNetdevSystem
internal import LibeventConcurrency

/// Where the frames of a queue go.
enum SendRoute {
  /// To its own ring.
  case own
  /// Nowhere yet: what is in the ring shall come back first, so that nothing overtakes it.
  case draining
  /// To the ring of another pair: the queue's own is not in use.
  case moving(to: NetworkQueue)
  /// Nowhere yet: what another pair carries shall come back before the own ring is used again.
  case returning
}

/// A frame that another pair's ring carries for a queue.
struct CarriedFrame: Sendable {
  let packet: Packet
  let origin: NetworkQueue
  /// Who waits for it there, as the entry has it.
  let cookie: UInt32

  /// Tells the queue that it is released, or has failed. From any loop.
  static func tell(_ origin: NetworkQueue, _ cookie: UInt32, _ error: NetworkDeviceError?) {
    origin.loop.execute { origin.assumeIsolated { $0.turn.takeHome(cookie, error) } }
  }
}

// A device that uses fewer of its pairs serves the others' rings no more (VIRTIO 1.4 §5.1.9.5.6.1). Who sends by the queue of such a pair
// notices nothing: what is in its ring is released first, and from then on its frames go by the ring of a pair that is in use. The
// queue goes on counting them as its own, and waits for them as for those in its ring, so that a full ring over there holds
// senders here. On its way back it waits for the last of them: frames of one queue are in order throughout.
extension QueueTurn {
  /// Publishes nothing more until it is told where frames go.
  func beginDraining() {
    guard isOpen else { return }
    isPublishing = false
    route = .draining
  }

  /// Whether the device, or another pair, has none of its frames; what it has released is taken first.
  func isDrained() -> Bool {
    takeReleased()
    return unsafe frames.pointee.inFlight == 0
  }

  /// Frames go by another pair from now on.
  func move(to mate: NetworkQueue) {
    guard isOpen else { return }
    isPublishing = false
    route = .moving(to: mate)
    flush()
    updateCredits()
    loop.requestTurn()
  }

  /// Frames go to the own ring again, as soon as none is elsewhere.
  func comeBack() {
    guard isOpen, !isPublishing else { return }
    route = .returning
    returnIfDrained()
  }

  private func returnIfDrained() {
    guard case .returning = route, away.isEmpty else { return }
    route = .own
    isPublishing = true
    flush()
    updateCredits()
    loop.requestTurn()
  }
}

// MARK: The queue whose frames another pair carries

extension QueueTurn {
  /// Hands frames to the pair that carries them, instead of publishing them; the number that it has taken.
  @inline(never) func publishElsewhere(_ entries: Span<FrameEntry>) -> Int {
    guard isOpen, case .moving(let mate) = route, let origin = unsafe owner?.takeUnretainedValue() else { return 0 }
    var carried: [CarriedFrame] = []
    carried.reserveCapacity(entries.count)
    for position in 0..<entries.count {
      let entry = entries[position]
      // The driver's reference becomes the packet's.
      let packet = unsafe Packet(owning: frames.pointee.records.advanced(by: Int(entry.slot)))
      away[entry.cookie, default: 0] += 1
      carried.append(CarriedFrame(packet: packet, origin: origin, cookie: entry.cookie))
    }
    unsafe frames.pointee.inFlight += entries.count
    statistics.packetsSubmitted &+= UInt64(entries.count)
    statistics.packetsMoved &+= UInt64(entries.count)
    active = true
    mate.loop.execute { [carried] in mate.assumeIsolated { $0.turn.carry(carried) } }
    return entries.count
  }

  /// A frame that another pair has carried is released, or has failed.
  func takeHome(_ cookie: UInt32, _ error: NetworkDeviceError?) {
    // Unknown when the queue has ended.
    guard let count = away[cookie] else { return }
    away[cookie] = count == 1 ? nil : count - 1
    unsafe frames.pointee.inFlight -= 1
    settleHome(cookie, error)
    active = true
    if !watchers.isEmpty { tellWatchers() }
    returnIfDrained()
    updateCredits()
    loop.requestTurn()
  }

  private func settleHome(_ cookie: UInt32, _ error: NetworkDeviceError?) {
    if let error {
      statistics.packetsFailed &+= 1
      statistics.failedInFlight &+= 1
      if cookie != 0 { settleFailed(cookie, error) }
    } else {
      statistics.packetsReleased &+= 1
      if cookie != 0 { settleReleased(cookie, 1) }
    }
  }

  /// The queue ends: what others carry for it is theirs to end, and who waits for it here is told now.
  func failAway(_ cause: NetworkDeviceError) {
    let left = away
    away = [:]
    for (cookie, count) in left {
      unsafe frames.pointee.inFlight -= count
      for _ in 0..<count { settleHome(cookie, cause) }
    }
    route = .own
  }
}

// MARK: The queue that carries

extension QueueTurn {
  /// Takes frames of another pair: they go when there is room, before this queue's own senders.
  func carry(_ frames: [CarriedFrame]) {
    if let end {
      for frame in frames { CarriedFrame.tell(frame.origin, frame.cookie, end) }
      return
    }
    carried.append(contentsOf: frames)
    isCarrying = !carried.isEmpty
    updateCredits()
    loop.requestTurn()
  }

  /// Accepts what it carries, no more than `room`; returns the room that is left.
  @inline(never) func acceptCarried(_ room: Int) -> Int {
    let count = min(max(room, 0), carried.count)
    for frame in carried.prefix(count) {
      let waiter = waiters.take(.carried)
      waiter.origin = frame.origin
      waiter.originCookie = frame.cookie
      releaseWaiters += 1
      lend(1)
      unsafe QueueFrames.accept(frame.packet, cookie: waiter.index, to: self.frames)
    }
    carried.removeFirst(count)
    isCarrying = !carried.isEmpty
    return room - count
  }

  /// What it has carried is released, or has failed.
  func settleCarried(_ waiter: Waiter, _ error: NetworkDeviceError?) {
    releaseWaiters -= 1
    if let origin = waiter.origin { CarriedFrame.tell(origin, waiter.originCookie, error) }
    waiter.origin = nil
    waiters.putBack(waiter)
  }

  /// The queue takes no more: what it has not accepted goes back as failed.
  func refuseCarried(_ cause: NetworkDeviceError) {
    let left = carried
    carried = []
    isCarrying = false
    for frame in left { CarriedFrame.tell(frame.origin, frame.cookie, cause) }
  }
}
