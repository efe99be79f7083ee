internal import LibeventConcurrency

// Pipelines: batches whose frames come one after the other.
extension NetworkQueue {
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
  /// Publishes a packet that was taken from a source, when there is room for it: if it cannot be published it has failed, which
  /// for its length alone is nothing to the others.
  @usableFromInline func acceptOrFail(
    _ packet: consuming Packet, in batch: Waiter, limit: Int
  ) async throws(NetworkDeviceError) {
    do throws(NetworkDeviceError) {
      try await accept(consume packet, in: batch, limit: limit, for: "forward")
    } catch {
      turn.noteUnsent()
      if error.code != .frameTooLong { throw error }
    }
  }

  /// Waits until one more packet of a batch may be published: room in the ring, and within the batch's limit.
  @usableFromInline func makeRoom(
    in batch: Waiter, limit: Int, for operation: String = "forward"
  ) async throws(NetworkDeviceError) {
    try await waitForLimit(limit, of: batch, for: operation)
    try await reserve(for: operation)
  }

  /// Room that this task has and does not use now is for whoever waits for it.
  @usableFromInline func leaveRoom() {
    guard !turn.lineIsEmpty else { return }
    turn.updateCredits()
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
    let end = turn.end
    if Task.isCancelled, end?.code ?? .closed == .closed {
      // What the source threw of its own is more than that the task was cancelled; what the wait threw is just that.
      if let failure, !failure.isOfCancellation { return failure }
      return NetworkDeviceError.cancelled("forward")
    }
    return end ?? failure
  }

  /// Waits for what is in flight; then the pipeline is over, whose source may have failed in its own way.
  @usableFromInline func closeBatch(_ batch: Waiter, _ failure: (any Error)?) async throws {
    do throws(NetworkDeviceError) {
      try await closeBatch(batch, nil, for: "forward")
    } catch {
      throw failure ?? error
    }
    if let failure { throw failure }
  }
}
