internal import LibeventConcurrency

// Sending without waiting: for programs that serve several, of which none may be held up by another. What finds no room comes back,
// and it is the program's to drop it, to keep it or to send something else.
extension NetworkQueue {
  /// Submits a packet if there is room for it now, and never suspends.
  ///
  /// ```swift
  /// if try output.trySubmit(packet) != nil { dropped += 1 }
  /// ```
  ///
  /// On the queue's loop there is room as far as ring and pool have some, once the device has had its turn with what was published
  /// before; nobody who waits for room is passed over. A packet that is not in the queue's pool moves there, if there are buffers.
  /// Elsewhere there is room as far as the queue's mailbox has some (256 packets) and nobody waits; the loop takes them as those of
  /// `submit(_:)`. What was taken and cannot be sent after all, because the queue ends, counts among `packetsFailed`.
  ///
  /// Every packet that comes back counts among ``QueueStatistics/packetsRefused``. To try again at once is vain, and holds the loop:
  /// there is room when something has been released (``releases``), or after a while (``sleep(for:)``).
  ///
  /// - Parameter packet: give it away (`consume`) when nobody else needs it: what somebody else holds too is counted by references.
  /// - Returns: nil when it was taken, otherwise the packet.
  /// - Throws: what more room would not mend: `closed` or the cause when the queue has ended, `frameTooLong` when the device never
  ///   takes it, `outOfMemory` when the pool never has so many buffers.
  @inlinable @inline(__always) public nonisolated func trySubmit(
    _ packet: consuming Packet
  ) throws(NetworkDeviceError) -> Packet? {
    if isHere, canAccept(packet) {
      acceptSingle(packet)
      return nil
    }
    // The way that cannot throw leaves the caller's loop its registers.
    switch trySubmitSlowly(consume packet) {
    case .taken: return nil
    case .refused(let packet): return packet
    case .failed(let error): throw error
    }
  }

  /// Submits as many frames of a burst, from the first on, as there is room for now, and never suspends.
  ///
  /// Room is what it is for a single packet; at most one doorbell. A frame that this device never takes is dropped, and counts among
  /// `packetsFailed`.
  ///
  /// - Returns: nil when all were taken, otherwise a burst of those that were not, in order: dropping it drops them.
  /// - Throws: `closed` or the cause when the queue has ended; the burst is dropped then.
  @inlinable public nonisolated func trySubmit(
    _ burst: consuming PacketBurst
  ) throws(NetworkDeviceError) -> PacketBurst? {
    if isHere, hasRoom(for: burst.count), takesAsItLies(burst) {
      publish(burst)
      return nil
    }
    return try trySubmitSlowly(consume burst)
  }

  /// Frames that `trySubmit(_:)` would take at this moment, if they lie in the queue's pool.
  ///
  /// On the queue's loop: the room of the ring, as far as the pool leaves its reserve to reception; 0 while somebody waits for room.
  /// Elsewhere a snapshot of what the queue's mailbox takes.
  public nonisolated var transmitRoom: Int {
    guard isHere else { return mailbox.room }
    return unsafe frames.pointee.withTurn { $0.roomNow }
  }

  /// Frames published and not released yet. From any thread: on the loop as it is, elsewhere a snapshot.
  public nonisolated var inFlight: Int {
    if isHere { return unsafe frames.pointee.inFlight }
    // Read in this order no frame is back that has not been published.
    let back = counters.framesBack
    return Int(clamping: counters.packetsSubmitted &- back)
  }
}

/// What became of a packet that was tried.
@frozen @usableFromInline enum TriedPacket: Sendable {
  case taken
  case refused(Packet)
  case failed(NetworkDeviceError)
}

extension NetworkQueue {
  @usableFromInline @inline(never) nonisolated func trySubmitSlowly(_ packet: consuming Packet) -> TriedPacket {
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    do throws(NetworkDeviceError) {
      guard let refused = try tryPacket(consume packet) else { return .taken }
      return .refused(refused)
    } catch {
      return .failed(error)
    }
  }

  /// Takes a packet that is not at once to be taken; returns it when there is no room.
  private nonisolated func tryPacket(_ packet: consuming Packet) throws(NetworkDeviceError) -> Packet? {
    guard canSend(packet) else { throw .tooLong(packet.count, maximumFrameLength, "trySubmit") }
    let isForeign = unsafe !pool.owns(packet.record)
    if isForeign { try checkBuffers(for: packet.count, "trySubmit") }
    guard isHere else { return try tryFromOutside(consume packet) }
    let turn = try openTurn("trySubmit")
    turn.takeSubmissions()
    guard turn.makeRoomNow() > 0 else {
      turn.statistics.packetsRefused &+= 1
      return packet
    }
    if isForeign {
      guard turn.bufferLine.isEmpty, let first = unsafe turn.takeChain(for: packet.count) else {
        turn.statistics.packetsRefused &+= 1
        return packet
      }
      accept(unsafe turn.adopt(packet, into: first))
    } else {
      accept(consume packet)
    }
    return nil
  }

  @usableFromInline @inline(never) nonisolated func trySubmitSlowly(
    _ burst: consuming PacketBurst
  ) throws(NetworkDeviceError) -> PacketBurst? {
    guard isHere else { return try tryFromOutside(consume burst) }
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    let turn = try openTurn("trySubmit")
    turn.takeSubmissions()
    let count = burst.count
    let room = turn.makeRoomNow(for: count)
    if takesAsItLies(burst) {
      burst.publishFirst(min(room, count), in: turn)
    } else {
      burst.moveFirst(room, to: self, turn)
    }
    guard burst.count > 0 else { return nil }
    turn.statistics.packetsRefused &+= UInt64(burst.count)
    return burst
  }

  private nonisolated func tryFromOutside(_ packet: consuming Packet) throws(NetworkDeviceError) -> Packet? {
    guard let refused = mailbox.tryOffer(consume packet) else { return nil }
    if let end = mailbox.end { throw end }
    mailbox.note(refused: 1)
    return refused
  }

  private nonisolated func tryFromOutside(_ burst: consuming PacketBurst) throws(NetworkDeviceError) -> PacketBurst? {
    if let end = mailbox.end { throw end }
    var (taken, failed) = (0, 0)
    defer { mailbox.note(failed: failed) }
    while let packet = burst.takeFirst(&taken) {
      guard canSend(packet) else {
        failed += 1
        continue
      }
      guard let refused = mailbox.tryOffer(consume packet) else { continue }
      burst.putBack(consume refused, &taken)
      burst.dropFirst(taken)
      mailbox.note(refused: burst.count)
      return burst
    }
    return nil
  }

  /// The turn of a queue that takes work; on the loop.
  private nonisolated func openTurn(_ operation: String) throws(NetworkDeviceError) -> QueueTurn {
    // A reference of its own: this is the slow way.
    let turn = unsafe frames.pointee.turn.takeUnretainedValue()
    if let end = turn.end { throw end }
    return turn
  }
}

extension QueueTurn {
  /// Frames that may be accepted now from whoever does not wait: none before those who do. The turn's budget, which makes a task
  /// suspend, is nothing to it.
  var roomNow: Int {
    guard isOpen, lineIsEmpty, unsafe frames.pointee.pending.pointee.count < BurstBlock.capacity else { return 0 }
    return max(0, roomByRing)
  }

  /// Sees to it that there is room for `count` frames, as far as there can be without waiting, and puts what there is into the
  /// credits, where `accept` takes it.
  func makeRoomNow(for count: Int = 1) -> Int {
    if roomNow < count, lookedInVain != loop.turn {
      takeReleased()
      if roomNow < count { pumpReleases() }
      // A device that has just been asked in vain is not asked again in the same turn: a port that is stuck costs little.
      if roomNow == 0 { lookedInVain = loop.turn }
    }
    let room = min(count, roomNow)
    let missing = unsafe room - frames.pointee.credits
    if missing > 0 { lend(missing) }
    return room
  }
}

extension PacketBurst {
  /// Publishes the first frames, which lie in the queue's pool and for which there is room.
  fileprivate mutating func publishFirst(_ taken: Int, in turn: QueueTurn) {
    guard taken > 0 else { return }
    let all = count
    unsafe block.pointee.count = taken
    unsafe turn.publishBurst(block)
    unsafe block.pointee.count = all
    dropFirst(taken)
  }

  /// Copies the first frames, for which there is room, into the queue's pool, as far as that has buffers, and submits them.
  fileprivate mutating func moveFirst(_ room: Int, to queue: NetworkQueue, _ turn: QueueTurn) {
    var (room, taken) = (room, 0)
    while room > 0, let packet = takeFirst(&taken) {
      guard queue.canSend(packet) else {
        turn.noteUnsent()
        continue
      }
      guard turn.bufferLine.isEmpty, let first = unsafe turn.takeChain(for: packet.count) else {
        putBack(consume packet, &taken)
        break
      }
      queue.accept(unsafe turn.adopt(packet, into: first))
      room -= 1
    }
    dropFirst(min(taken, count))
  }

  /// The packet that was taken last is the burst's again.
  fileprivate mutating func putBack(_ packet: consuming Packet, _ position: inout Int) {
    // The owner of a slot owns one reference to the object that travels with it.
    _ = unsafe Unmanaged.passRetained(packet.object)
    position -= 1
  }
}
