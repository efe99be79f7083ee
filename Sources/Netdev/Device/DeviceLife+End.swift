internal import LibeventConcurrency
internal import Logging
internal import Synchronization

// The end of a device's life: the reset, and what is told to whom.
extension DeviceLife {
  /// How long the queues' loops are waited for, each time that they are told something about the end.
  private static let tellingTime = Duration.milliseconds(250)

  /// Waits until the device is reset and closed; from any task. No cancellation ends it: it takes the reset's time-out and a
  /// second at most.
  func ended() async -> NetworkDeviceError? {
    while !isOver { await over.pass() }
    return failure
  }

  func takeDown(_ reason: NetworkDeviceError) async {
    var cause = reason
    isEnding.store(true, ordering: .sequentiallyConsistent)
    if end == nil { receive(.end(cause)) }
    enter(.resetting)
    if cause.code != .closed { noteBroken(cause) }
    log.write(.debug, "closing")
    for end in await tell({ queue in queue.stopAccepting(reason) }) {
      // A queue that broke ends its consumers at once, and with them perhaps the program's `run`, which then asks for a normal
      // close before the queue's own word is here: a broken queue must not look like a normal end.
      if cause.code == .closed, end.code != .closed {
        cause = end
        noteBroken(end)
      }
    }
    var failure: NetworkDeviceError?
    let timeout = settings.resetTimeout
    let started = loop.now
    do throws(NetworkDeviceError) {
      try await driver.reset(timeout: timeout)
    } catch {
      failure = error
    }
    log.write(step: "reset", since: started, loop, ["timeout": "\(timeout)"], failure)
    if let failure {
      log.write(.error, "reset not confirmed; memory is quarantined", ["error": "\(failure)"])
    }
    let (last, isConfirmed) = (failure ?? cause, failure == nil)
    _ = await tell { queue in queue.finish(last, confirmed: isConfirmed) }
    let shutting = loop.now
    await driver.shutDown()
    log.write(step: "shut down", since: shutting, loop, [:], nil)
    releaseQueues()
    log.write(.debug, "device closed")
    enter(brokenCause == nil && failure == nil ? .closed : .failed)
    DriversInUse.release(driver)
    await log.written(on: loop, within: Self.writingTime)
    settle(failure)
  }

  /// How long the log is waited for, so that a program that ends now ends with its last lines.
  private static let writingTime = Duration.milliseconds(100)

  private func noteBroken(_ cause: NetworkDeviceError) {
    if cause.code != .cancelled { brokenCause = cause }
    // Of a device that was never open whoever opens it has the error, and who cancelled knows.
    log.write(isOpened && cause.code != .cancelled ? .error : .debug, "the device ends", ["cause": "\(cause)"])
  }

  /// Tells all queues.
  private func tell<Answer: Sendable>(
    _ body: @escaping @Sendable (isolated NetworkQueue) -> Answer
  ) async -> [Answer] {
    await tell(places, body)
  }

  /// Tells some queues at the same time, each on its loop; the answers of those whose loops answer in time. A blocked loop hears
  /// of it, in order, when it goes on.
  @discardableResult func tell<Answer: Sendable>(
    _ places: [QueuePlace], _ body: @escaping @Sendable (isolated NetworkQueue) -> Answer
  ) async -> [Answer] {
    let deadline = LoopDeadline(loop, after: Self.tellingTime)
    let calls = places.map { place in loop.call(on: place.loop) { place.queue?.assumeIsolated { body($0) } } }
    var answers: [Answer] = []
    for call in calls {
      if case .value(let answer?) = await call.value(within: deadline.remaining) { answers.append(answer) }
    }
    return answers
  }

  /// The last reference to a queue, and with it to its loop, goes on that loop: here it would wait for the loop's thread.
  private func releaseQueues() {
    for place in places { place.loop.execute { place.empty() } }
    places = []
  }

  /// The driver has not come back from a step, although it was told to: nobody shall wait for it any longer.
  func giveUp() {
    guard !isOver else { return }
    let error = NetworkDeviceError(
      .resetNotConfirmed, "closing", offered: "the driver did not end its step (\(state.rawValue))",
      advice: "its steps must return when their task is cancelled")
    log.write(.error, "reset not confirmed; memory is quarantined", ["error": "\(error)"])
    for place in places {
      place.loop.execute { place.queue?.assumeIsolated { $0.finish(error, confirmed: false) } }
    }
    room.note(error)
    settle(error)
  }

  func settle(_ failure: NetworkDeviceError?) {
    guard !isOver else { return }
    self.failure = failure
    isOver = true
    link.finish()
    announcements.finish()
    // Of a driver that did not come back from it.
    presentOrder?.promise.fulfil(.failure(failure ?? end ?? .closedByProgram))
    over.openAll()
  }
}
