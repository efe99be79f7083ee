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
  /// - Throws: `cancelled` if the task was cancelled before the last one was published: those published before have been
  ///   sent, and released, when this throws. `closed` or the cause when the queue ended; `frameTooLong`: the packets before
  ///   that one are sent.
  public func send(contentsOf packets: consuming [Packet]) async throws(NetworkDeviceError) {
    guard !packets.isEmpty else { return }
    let batch = try openBatch()
    // Taken from the end: what is popped is moved out, and nobody else holds it.
    packets.reverse()
    var failure: NetworkDeviceError?
    do throws(NetworkDeviceError) {
      while let packet = packets.popLast() { try await accept(packet, in: batch) }
    } catch {
      failure = error
    }
    try await closeBatch(batch, failure)
  }

  /// Sends all frames of a burst and returns when the device has released their buffers.
  ///
  /// - Throws: as `send(contentsOf:)`, but that what was not published when it throws is dropped as a whole.
  public func send(_ burst: consuming PacketBurst) async throws(NetworkDeviceError) {
    guard burst.count > 0 else { return }
    if Task.isCancelled { throw .cancelledBeforePublication }
    let batch = try openBatch()
    var failure: NetworkDeviceError?
    do throws(NetworkDeviceError) {
      if !hasRoom(for: burst.count) { _ = try await reserve(burst.count) }
      batch.flights += burst.count
      burst.mark(cookie: batch.index)
      publish(burst)
    } catch {
      failure = error
    }
    try await closeBatch(batch, failure)
  }

  /// A pipeline: sends what `source` brings, in order, until it ends, and returns when the device has released the last buffer.
  ///
  /// ```swift
  /// try await queue.forward(from: queue.packets.compactMap(answer))
  /// ```
  ///
  /// Not more than `limit` frames of it are in flight at a time (without one, as many as the ring takes); while they are, the
  /// source is not asked for more: nothing piles up and nothing is dropped here. Doorbells are rung by the burst.
  ///
  /// - Throws: `cancelled` when the task is cancelled: what has been published is then released. What the source throws.
  ///   `closed` or the cause when the queue has ended; `frameTooLong`.
  @inlinable public func forward(from source: some PacketSequence, inFlight limit: Int = .max) async throws {
    let batch = try openBatch()
    var packets = source.makeAsyncIterator()
    do throws(NetworkDeviceError) {
      while true {
        // What is at hand is taken and accepted synchronously.
        while let packet = packets.takePacket() {
          if canAccept(packet), batch.flights < limit {
            acceptSingle(packet, in: batch)
          } else {
            try await accept(packet, in: batch, limit: limit)
          }
        }
        guard let packet = await packets.nextPacket() else { break }
        try await accept(packet, in: batch, limit: limit)
      }
    } catch {
      try await closeBatch(batch, error)
    }
    try await closeBatch(batch, Task.isCancelled ? .cancelledBeforePublication : nil)
  }

  /// The same pipeline for a source of any kind, which may throw: at the price of what its `next` costs.
  @_disfavoredOverload
  @inlinable public func forward<Source: AsyncSequence>(
    from source: Source, inFlight limit: Int = .max
  ) async throws where Source.Element == Packet {
    let batch = try openBatch()
    do {
      for try await packet in source {
        if canAccept(packet), batch.flights < limit {
          acceptSingle(packet, in: batch)
        } else {
          try await accept(packet, in: batch, limit: limit)
        }
      }
    } catch {
      try? await closeBatch(batch, nil)
      throw error
    }
    try await closeBatch(batch, Task.isCancelled ? .cancelledBeforePublication : nil)
  }
}

extension NetworkQueue {
  @usableFromInline func openBatch() throws(NetworkDeviceError) -> Waiter {
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, "submit") }
    if let end = core.end { throw end }
    let batch = core.waiters.take(.batch)
    batch.flights = 0
    batch.enough = nil
    batch.failure = nil
    return batch
  }

  @inlinable nonisolated func acceptSingle(_ packet: consuming Packet, in batch: Waiter) {
    batch.flights &+= 1
    acceptSingle(packet, cookie: batch.index)
  }

  /// Publishes one packet of a batch when there is room for it, in the ring and within the batch's limit.
  @usableFromInline func accept(
    _ packet: consuming Packet, in batch: Waiter, limit: Int = .max
  ) async throws(NetworkDeviceError) {
    if Task.isCancelled { throw .cancelledBeforePublication }
    if batch.flights >= max(1, limit) { await waitForFlights(batch, atMost: max(1, limit) - 1) }
    if let failure = batch.failure { throw failure }
    let core = try await reserve()
    let sendable = try core.prepareToSend(packet)
    batch.flights += 1
    accept(sendable, cookie: batch.index)
  }

  /// Waits for what is in flight; then the batch is over.
  @usableFromInline func closeBatch(_ batch: Waiter, _ failure: NetworkDeviceError?) async throws(NetworkDeviceError) {
    await waitForFlights(batch, atMost: 0)
    let failure = failure ?? batch.failure
    unsafe core?.waiters.putBack(batch)
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
