internal import LibeventConcurrency

// Many frames, one wait: batches and pipelines. Their interrupts may be delayed over what is in flight (EVENT_IDX), under
// the queue's time bound: nobody waits for one frame of them.
extension NetworkQueue {
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
      while let packet = packets.popLast() { try await accept(packet, in: batch, for: "send(contentsOf:)") }
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

  /// A pipeline: sends what `source` brings, in order, until it ends, and returns when the device has released the last buffer.
  ///
  /// ```swift
  /// try await queue.forward(from: queue.packets.compactMap(answer))
  /// ```
  ///
  /// The source may be the packets of another device. With the same pool nothing is copied, and with the same loop nothing
  /// leaves it:
  ///
  /// ```swift
  /// let devices = try await NetworkDevice.open(["tap:tap0", "tap:tap1"])
  /// try await devices[1].queues[0].forward(from: devices[0].queues[0].packets)
  /// ```
  ///
  /// Not more than `limit` frames of it are in flight at a time (without one, as many as the ring takes); while they are, the
  /// source is not asked for more: nothing piles up and nothing is dropped here. Doorbells are rung by the burst.
  ///
  /// A packet that is longer than this device takes is dropped, and one that a lost device had may be (`frameLost`); both are counted
  /// among `packetsFailed`: frames do not end it.
  ///
  /// Deadline: none of its own, it goes on as long as the source does; the queue's end ends it within `resetTimeout` and a
  /// second, and so does that of the source's queue end the source. Cancellation ends the wait for the source, for room
  /// and for buffers at once, and it throws when what is published has been released. A source of another kind that does not
  /// heed cancellation is waited for.
  ///
  /// - Throws: `cancelled` when the task is cancelled: what has been published is then released. What the source throws.
  ///   `closed` or the cause when the queue ends, also while the source brings nothing; `outOfMemory`, as `submit(_:)`.
  @inlinable public func forward(from source: some PacketSequence, inFlight limit: Int = .max) async throws {
    let batch = try openBatch(isPipeline: true)
    // A task of its own: when this queue ends, the wait for the source ends with it.
    let pipeline = Task { await self.move(source, in: batch, limit: max(1, limit)) }
    try await closeBatch(batch, await outcome(of: pipeline, batch))
  }

  /// Moves packets from a source into this queue until either ends; a packet is taken when there is room for it, and stays
  /// where it is until then.
  @inlinable func move(_ source: some PacketSequence, in batch: Waiter, limit: Int) async -> (any Error)? {
    var packets = source.makeAsyncIterator()
    do throws(NetworkDeviceError) {
      while true {
        guard hasRoom(for: 1), batch.flights < limit else {
          try await makeRoom(in: batch, limit: limit)
          continue
        }
        // What is at hand is taken and accepted synchronously.
        if let packet = packets.takePacket() {
          if isSimple(packet) {
            acceptSingle(consume packet, in: batch)
          } else {
            try await acceptOrFail(consume packet, in: batch, limit: limit)
          }
          continue
        }
        leaveRoom()
        guard let packet = await packets.nextPacket() else { return nil }
        if canAccept(packet) {
          acceptSingle(consume packet, in: batch)
        } else {
          try await acceptOrFail(consume packet, in: batch, limit: limit)
        }
      }
    } catch {
      return error
    }
  }

  /// The same pipeline for a source of any kind, which may throw: at the price of what its `next` costs. Deadline and
  /// cancellation are the same.
  @_disfavoredOverload
  @inlinable public func forward<Source: AsyncSequence>(
    from source: Source, inFlight limit: Int = .max
  ) async throws where Source.Element == Packet {
    let batch = try openBatch(isPipeline: true)
    let pipeline = Task { await self.move(source, in: batch, limit: max(1, limit)) }
    try await closeBatch(batch, await outcome(of: pipeline, batch))
  }

  @inlinable func move<Source: AsyncSequence>(
    _ source: Source, in batch: Waiter, limit: Int
  ) async -> (any Error)? where Source.Element == Packet {
    var packets = source.makeAsyncIterator()
    do {
      while true {
        if !hasRoom(for: 1) || batch.flights >= limit { try await makeRoom(in: batch, limit: limit) }
        leaveRoom()
        guard let packet = try await packets.next(isolation: self) else { return nil }
        if canAccept(packet), batch.flights < limit {
          acceptSingle(consume packet, in: batch)
        } else {
          try await acceptOrFail(consume packet, in: batch, limit: limit)
        }
      }
    } catch {
      return error
    }
  }
}

extension NetworkQueue {
  @usableFromInline func openBatch(isPipeline: Bool = false) throws(NetworkDeviceError) -> Waiter {
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, "submit") }
    if let end = core.end { throw end.met(by: "send") }
    let batch = core.waiters.take(.batch)
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
  private func accept(
    _ packet: consuming Packet, in batch: Waiter, limit: Int = .max, for operation: String
  ) async throws(NetworkDeviceError) {
    try await waitForLimit(limit, of: batch, for: operation)
    let sendable = try await admit(consume packet, for: operation)
    batch.flights += 1
    accept(consume sendable, cookie: batch.index)
  }

  /// The same for a packet that was taken from a source: if it cannot be published it has failed, which for its length alone
  /// is nothing to the others.
  @usableFromInline func acceptOrFail(
    _ packet: consuming Packet, in batch: Waiter, limit: Int
  ) async throws(NetworkDeviceError) {
    do throws(NetworkDeviceError) {
      try await accept(consume packet, in: batch, limit: limit, for: "forward")
    } catch {
      unsafe core?.statistics.packetsFailed &+= 1
      if error.code != .frameTooLong { throw error }
    }
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
    _ = try await reserve(burst.count, for: "send")
    accept(burst, in: batch)
  }

  /// Waits until one more packet of a batch may be published: room in the ring, and within the batch's limit.
  @usableFromInline func makeRoom(
    in batch: Waiter, limit: Int, for operation: String = "forward"
  ) async throws(NetworkDeviceError) {
    try await waitForLimit(limit, of: batch, for: operation)
    _ = try await reserve(for: operation)
  }

  private func waitForLimit(
    _ limit: Int, of batch: Waiter, for operation: String
  ) async throws(NetworkDeviceError) {
    if Task.isCancelled { throw .cancelled(operation) }
    if batch.flights >= limit { await waitForFlights(batch, atMost: limit - 1) }
    if let failure = batch.failure { throw failure.met(by: operation) }
  }

  /// Room that this task has and does not use now is for whoever waits for it.
  @usableFromInline func leaveRoom() {
    guard let core = unsafe core, !core.lineIsEmpty else { return }
    core.updateCredits()
  }

  /// What a pipeline came to. It ends at once when this queue ends, and when the task that asked for it is cancelled.
  @usableFromInline func outcome(of pipeline: Task<(any Error)?, Never>, _ batch: Waiter) async -> (any Error)? {
    batch.pipeline = pipeline
    let failure = await withTaskCancellationHandler {
      await pipeline.value
    } onCancel: {
      pipeline.cancel()
    }
    batch.pipeline = nil
    let end = unsafe core?.end
    if Task.isCancelled, end?.code ?? .closed == .closed {
      // What the source threw of its own is more than that the task was cancelled; what the wait threw is just that.
      if let failure, !failure.isOfCancellation { return failure }
      return NetworkDeviceError.cancelled("forward")
    }
    return end ?? failure
  }

  /// Waits for what is in flight; then the batch is over.
  func closeBatch(
    _ batch: Waiter, _ failure: NetworkDeviceError?, for operation: String
  ) async throws(NetworkDeviceError) {
    await waitForFlights(batch, atMost: 0)
    let failure = failure ?? batch.failure?.told(by: operation)
    unsafe core?.waiters.putBack(batch)
    if let failure { throw failure }
  }

  /// The same for a pipeline, whose source may have failed in its own way.
  @usableFromInline func closeBatch(_ batch: Waiter, _ failure: (any Error)?) async throws {
    do throws(NetworkDeviceError) {
      try await closeBatch(batch, nil, for: "forward")
    } catch {
      throw failure ?? error
    }
    if let failure { throw failure }
  }

  private func waitForFlights(_ batch: Waiter, atMost enough: Int) async {
    guard batch.flights > enough, let core = unsafe core else { return }
    // Often they have been released by now and only need to be taken.
    core.pumpReleases()
    guard batch.flights > enough else { return }
    batch.outcome = .pending
    batch.enough = enough
    core.interestChanged()
    await park(batch)
  }
}
