public import LibeventConcurrency

// Time on the queue's loop: by its clock and its timers, so that nothing of it leaves the loop, and a simulated loop has no other.
extension NetworkQueue {
  /// The clock of the queue's loop.
  public nonisolated var clock: LoopClock { loop.clock }

  /// Waits for so long, by the loop's clock; the loop does other things meanwhile.
  ///
  /// Deadline: its own. Cancellation ends it at once, and so does the queue's end, whatever time is left.
  ///
  /// - Throws: `cancelled` when the task is, `closed` or the cause when the queue ends; `system` when there is no timer to be had.
  public func sleep(for duration: Duration) async throws(NetworkDeviceError) {
    if let end = turn.end { throw end.met(by: "sleep") }
    if Task.isCancelled { throw .sleepCancelled }
    let waiter = turn.waiters.take(.time)
    let timer: LoopTimer
    do throws(LoopError) { timer = try turn.timer(of: waiter) { $0.sleepers.remove($1) } } catch {
      turn.waiters.putBack(waiter)
      throw NetworkDeviceError(timer: error, "sleep")
    }
    timer.schedule(after: duration)
    turn.sleepers.append(waiter)
    let outcome = await wait(waiter)
    timer.cancel()
    guard case .failed(let error) = outcome, error.code != .timedOut else { return }
    throw error.code == .cancelled ? .sleepCancelled : error.met(by: "sleep")
  }

  /// Calls `body` on the queue's loop every so often, the first time after `interval`, until it is cancelled or the queue ends.
  ///
  /// ```swift
  /// var leases = Leases()
  /// try queue.every(.seconds(1)) { leases.expire(at: queue.clock.now) }
  /// for await packet in queue.packets { … }
  /// ```
  ///
  /// The loop is held while `body` runs. What must be sent from there is sent by `trySubmit(_:)`, which does not wait.
  ///
  /// Nothing waits for it: it has no deadline, and cancelling a task does not end it; `cancel()` of what is returned does, and the
  /// queue's end.
  ///
  /// - Parameters:
  ///   - interval: from one call to the next; one shorter than a millisecond counts as one.
  ///   - body: called on the loop; what it refers to is kept until then.
  /// - Throws: `closed` or the cause when the queue has ended; `system` when there is no timer to be had.
  @discardableResult public func every(
    _ interval: Duration, _ body: @escaping () -> Void
  ) throws(NetworkDeviceError) -> LoopRepetition {
    if let end = turn.end { throw end.met(by: "every") }
    do throws(LoopError) {
      let repetition = try loop.every(interval, body)
      turn.repetitions.removeAll { $0.isCancelled }
      turn.repetitions.append(repetition)
      return repetition
    } catch {
      throw NetworkDeviceError(timer: error, "every")
    }
  }

  /// Takes a burst of received frames, up to 64; waits until there is at least one, but no longer than `limit` by the loop's clock.
  ///
  /// ```swift
  /// while true {
  ///   if let burst = try await queue.receiveBurst(within: .milliseconds(10)) { take(burst) }
  ///   else { flush() }    // nothing came for ten milliseconds
  /// }
  /// ```
  ///
  /// Deadline: its own. Cancellation ends the wait at once, and so does the queue's end, whatever time is left; what is at hand is
  /// taken first.
  ///
  /// - Returns: nil when the time was over first; without any time it takes what the loop's next turn has brought.
  /// - Throws: `cancelled` when the task is, `closed` or the cause when the queue ends: unlike `receiveBurst()`, since nil says
  ///   something else here.
  public func receiveBurst(within limit: Duration) async throws(NetworkDeviceError) -> sending PacketBurst? {
    if let burst = takeReadyBurst() { return burst }
    if limit <= .zero {
      // Who only looks lets the loop turn: what would come is brought by its turns.
      await waitForNextTurn()
      turn.takeFromOutside()
      if let burst = takeReadyBurst() { return burst }
    } else {
      let outcome = await fetch(.burst, within: limit)
      if case .block(let block)? = outcome { return unsafe PacketBurst(queue: self, block: block) }
    }
    if let end = turn.end { throw end.met(by: "receiveBurst") }
    if Task.isCancelled {
      throw NetworkDeviceError(.cancelled, "receiveBurst", offered: "the task was cancelled before a frame came")
    }
    return nil
  }

  /// Runs `body` on the queue's loop, and cancels it when it takes longer than `limit` by the loop's clock.
  ///
  /// ```swift
  /// try await queue.withDeadline(.seconds(1)) { queue in try await queue.send(packet) }
  /// ```
  ///
  /// Deadline: its own, at which `body` is cancelled; it is a task of its own, and this waits for its end: a `send` whose frame is
  /// published already goes on until the device has released it, since virtio takes nothing back. Cancellation of the caller's
  /// task is handed on to it. The queue's end ends it as far as it ends what `body` waits for.
  ///
  /// - Throws: `timedOut` when the time was over and `body` threw; what `body` throws before that; `system` when there is no timer
  ///   to be had, and then `body` has not run.
  public func withDeadline<Result: Sendable>(
    _ limit: Duration, _ body: @escaping @Sendable (isolated NetworkQueue) async throws -> Result
  ) async throws -> Result {
    let deadline = Deadline()
    let timer: LoopTimer
    do { timer = try loop.makeTimer { deadline.pass() } } catch {
      throw NetworkDeviceError(timer: error, "withDeadline")
    }
    defer { timer.cancel() }
    let task = Task { try await self.run(body) }
    deadline.task = task.cancel
    timer.schedule(after: limit)
    let result = await withTaskCancellationHandler {
      await task.result
    } onCancel: {
      task.cancel()
    }
    if case .failure = result, deadline.hasPassed {
      throw NetworkDeviceError(
        .timedOut, "withDeadline", offered: "it took longer than \(limit.inUnits)",
        advice: "what it waited for is the device's affair, or give it more time")
    }
    return try result.get()
  }
}

/// On the loop: what is to end when its time is over.
private final class Deadline {
  var task: (() -> Void)?
  private(set) var hasPassed = false

  func pass() {
    hasPassed = true
    task?()
  }
}

extension QueueTurn {
  /// A timer that ends a wait, if `remove` still finds the waiter where it waits.
  func timer(
    of waiter: Waiter, _ remove: @escaping (QueueTurn, Waiter) -> Bool
  ) throws(LoopError) -> LoopTimer {
    let generation = waiter.generation
    return try loop.makeTimer { [weak self] in
      guard let self, waiter.generation == generation, remove(self, waiter) else { return }
      waiter.settle(.failed(.timeOver))
    }
  }
}

extension NetworkDeviceError {
  /// The end of a wait that has one.
  static var timeOver: NetworkDeviceError { NetworkDeviceError(.timedOut, "wait") }

  fileprivate static var sleepCancelled: NetworkDeviceError {
    NetworkDeviceError(.cancelled, "sleep", offered: "the task was cancelled before the time was over")
  }

  fileprivate init(timer error: LoopError, _ operation: String) {
    self.init(.system, operation, offered: "no timer: \(error)")
  }
}
