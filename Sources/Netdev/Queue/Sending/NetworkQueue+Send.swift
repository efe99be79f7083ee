public import CNetdevSystem
public import LibeventConcurrency

// Sending: it returns when the device has released the buffers. Interrupts for a batch may be delayed over what is in flight
// (EVENT_IDX), under the queue's time bound: nobody waits for one frame of it.
extension NetworkQueue {
  /// Sends a packet and returns when the device has released its buffer.
  ///
  /// Waits for room and buffers as `submit(_:)` does.
  ///
  /// Deadline: none for the release, which is the device's affair; after ``NetworkDevice/close()``, or when the device is lost
  /// for good, it ends within `resetTimeout` and a second. Cancellation before the publication ends it at once, also when
  /// there was nothing to wait for; later it has no effect.
  ///
  /// - Throws: `cancelled` if the task was cancelled before publication (the packet was not sent), `closed` or the cause
  ///   when the queue ended before the device released the buffer; `frameTooLong` and `outOfMemory` as `submit(_:)`. After
  ///   publication cancellation has no effect: virtio has no way to take a single buffer back.
  @inlinable
  nonisolated(nonsending)
    public func send(_ packet: consuming Packet) async throws(NetworkDeviceError)
  {
    if isHere, canAccept(packet), !netdev_current_task_is_cancelled() {
      let place = beginSend(consume packet)
      guard place != 0 else { return }
      // No record of a cancellation, which has no effect from here on.
      await sends.pass()
      if unsafe frames.pointee.failedSends > 0, let failure = takeFailure(ofSend: place) { throw failure }
      sends.putBack(place)
      return
    }
    do throws(NetworkDeviceError) { try await sendSlowly(consume packet) } catch { throw error.broughtBack }
  }

  @usableFromInline func sendSlowly(_ packet: consuming Packet) async throws(NetworkDeviceError) {
    if Task.isCancelled { throw .cancelled("send") }
    let sendable = try await admit(consume packet, for: "send")
    let place = beginSend(consume sendable)
    guard place != 0 else { return }
    await sends.pass()
    if let failure = takeFailure(ofSend: place) { throw failure }
    sends.putBack(place)
  }

  /// On the loop, with room: takes a packet, and looks whether a device of this loop releases it at once: 0 when it has, otherwise
  /// the place in `sends` at which the task waits for that, as the next that it does.
  @usableFromInline nonisolated func beginSend(_ packet: consuming Packet) -> UInt32 {
    #if Testing
    if unsafe netdev_fault_is_planted("early-send") {
      accept(consume packet)
      unsafe frames.pointee.withTurn { $0.interestChanged() }
      return 0
    }
    #endif
    let place = sends.take()
    accept(consume packet, cookie: place | QueueTurn.sendCookie)
    return unsafe frames.pointee.withTurn { $0.isReleased(place) } ? 0 : place
  }

  /// On the loop: why the frame that was waited for at this place was not released, and the place is idle again; nil if it was.
  @usableFromInline @inline(never) nonisolated func takeFailure(ofSend place: UInt32) -> NetworkDeviceError? {
    unsafe frames.pointee.withTurn { $0.takeFailure(ofSend: place) }
  }

  /// Sends packets in order and returns when the device has released all of their buffers.
  ///
  /// One doorbell as long as the ring has room for all; where it has not, the rest follows as buffers are released. Give the
  /// collection away (`consume`) if it is in a variable: a packet that somebody else still holds is sent with its header in
  /// other memory.
  ///
  /// Deadline: as `send(_:)`. Cancellation: nothing more is published, and it throws when what has been is released.
  ///
  /// - Throws: `cancelled` if the task was cancelled before the last one was published: those published before have been
  ///   sent, and released, when this throws. `closed` or the cause when the queue ended; `frameTooLong` and `outOfMemory`, as
  ///   `submit(_:)`: the packets before that one are sent.
  public func send(contentsOf packets: consuming [Packet]) async throws(NetworkDeviceError) {
    guard !packets.isEmpty else { return }
    let batch = try openBatch()
    // Taken from the end: what is popped is moved out, and nobody else holds it.
    packets.reverse()
    var failure: NetworkDeviceError?
    do throws(NetworkDeviceError) {
      if Task.isCancelled { throw .cancelled("send(contentsOf:)") }
      while let packet = packets.popLast() {
        if canAccept(packet), batch.failure == nil {
          acceptSingle(consume packet, in: batch)
        } else {
          try await accept(consume packet, in: batch, for: "send(contentsOf:)")
        }
      }
    } catch {
      failure = error
    }
    try await closeBatch(batch, failure, for: "send(contentsOf:)")
  }

  /// Sends all frames of a burst and returns when the device has released their buffers.
  ///
  /// Deadline and cancellation: as `send(contentsOf:)`.
  ///
  /// - Throws: as `send(contentsOf:)`, but that a frame which is too long for the device does not keep the others from being
  ///   sent, and what was not published at any other failure is dropped as a whole.
  public func send(_ burst: consuming PacketBurst) async throws(NetworkDeviceError) {
    guard burst.count > 0 else { return }
    if Task.isCancelled { throw .cancelled("send") }
    let batch = try openBatch()
    var failure: NetworkDeviceError?
    do throws(NetworkDeviceError) {
      if hasRoom(for: burst.count), takesAsItLies(burst) {
        accept(burst, in: batch)
      } else {
        try await acceptSlowly(burst, in: batch)
      }
    } catch {
      failure = error
    }
    try await closeBatch(batch, failure, for: "send")
  }
}

extension QueueTurn {
  /// The frame that is waited for at this place has just been accepted: true when it is released already, and the place idle again.
  fileprivate func isReleased(_ place: UInt32) -> Bool {
    releaseWaiters &+= 1
    // Others that are due may have something to send, too: then all of it is published, rung for and released together.
    if driver.isServedHere, !loop.hasJobsDue { lookForRelease() }
    guard sends.isOpen(place), unsafe frames.pointee.failedSends == 0 else {
      interestChanged()
      sends.approach(place)
      return false
    }
    sends.putBack(place)
    return true
  }

  fileprivate func takeFailure(ofSend place: UInt32) -> NetworkDeviceError? {
    guard let failure = failures.removeValue(forKey: place) else { return nil }
    unsafe frames.pointee.failedSends -= 1
    sends.putBack(place)
    return failure.told(by: "send")
  }
}

// MARK: - Batches

extension NetworkQueue {
  @usableFromInline func openBatch(isPipeline: Bool = false) throws(NetworkDeviceError) -> Waiter {
    if let end = turn.end { throw end.met(by: "send") }
    let batch = turn.waiters.take(.batch)
    batch.flights = 0
    batch.enough = nil
    batch.failure = nil
    batch.isPipeline = isPipeline
    return batch
  }

  @inlinable nonisolated func acceptSingle(_ packet: consuming Packet, in batch: Waiter) {
    batch.flights &+= 1
    acceptSingle(consume packet, cookie: batch.index)
  }

  /// Publishes one packet of a batch when there is room for it, in the ring and within the batch's limit.
  func accept(
    _ packet: consuming Packet, in batch: Waiter, limit: Int = .max, for operation: String
  ) async throws(NetworkDeviceError) {
    try await waitForLimit(limit, of: batch, for: operation)
    let sendable = try await admit(consume packet, for: operation)
    batch.flights += 1
    accept(consume sendable, cookie: batch.index)
  }

  /// Publishes a burst, for which there is room, as a batch.
  private func accept(_ burst: consuming PacketBurst, in batch: Waiter) {
    batch.flights += burst.count
    burst.mark(cookie: batch.index)
    publish(burst)
  }

  private func acceptSlowly(_ burst: consuming PacketBurst, in batch: Waiter) async throws(NetworkDeviceError) {
    guard takesAsItLies(burst) else {
      return try await burst.takeAll { (packet: consuming Packet) async throws(NetworkDeviceError) in
        try await accept(packet, in: batch, for: "send")
      }
    }
    try await reserve(burst.count, for: "send")
    accept(burst, in: batch)
  }

  func waitForLimit(
    _ limit: Int, of batch: Waiter, for operation: String
  ) async throws(NetworkDeviceError) {
    if Task.isCancelled { throw .cancelled(operation) }
    if batch.flights >= limit { await waitForFlights(batch, atMost: limit - 1) }
    if let failure = batch.failure { throw failure.told(by: operation).met(by: operation) }
  }

  /// Waits for what is in flight; then the batch is over.
  func closeBatch(
    _ batch: Waiter, _ failure: NetworkDeviceError?, for operation: String
  ) async throws(NetworkDeviceError) {
    await waitForFlights(batch, atMost: 0)
    let failure = failure ?? batch.failure?.told(by: operation)
    turn.waiters.putBack(batch)
    if let failure { throw failure }
  }

  private func waitForFlights(_ batch: Waiter, atMost enough: Int) async {
    guard batch.flights > enough else { return }
    // Often they have been released by now and only need to be taken.
    turn.pumpReleases()
    guard batch.flights > enough else { return }
    batch.outcome = .pending
    batch.enough = enough
    turn.interestChanged()
    await park(batch)
  }
}
