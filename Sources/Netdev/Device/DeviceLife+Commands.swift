internal import LibeventConcurrency

// What the program wants of the running device: done by the life, in its turn.
extension DeviceLife {
  /// A command whose caller waits for what comes of it.
  struct Order: Sendable {
    let command: ControlCommand
    let promise: LoopPromise<Result<Void, NetworkDeviceError>>
  }

  /// Waits until the command is done, or refused; from any task, which can be cancelled.
  func perform(_ command: ControlCommand) async throws(NetworkDeviceError) {
    if let end { throw end }
    guard !isOver else { throw .closedByProgram }
    let promise = LoopPromise<Result<Void, NetworkDeviceError>>(loop: loop)
    receive(.order(Order(command: command, promise: promise)))
    switch await promise.value() {
    case .value(let result): try result.get()
    case .timedOut, .cancelled:
      throw NetworkDeviceError(
        .cancelled, "\(command)", offered: "the task was cancelled before the device had answered")
    }
  }

  /// Has the driver do it. What it throws is its caller's business, and the device goes on.
  func carryOut(_ order: Order) async throws(NetworkDeviceError) {
    // Whoever has stopped waiting before it began wants it no more.
    guard await !order.promise.isSettled else { return }
    presentOrder = order
    defer { presentOrder = nil }
    do throws(NetworkDeviceError) {
      if case .setActiveQueuePairs(let count) = order.command {
        try await setActivePairs(count)
        return order.promise.fulfil(.success(()))
      }
      try await step(nil) { [driver] () async throws(NetworkDeviceError) in try await driver.perform(order.command) }
      order.promise.fulfil(.success(()))
    } catch {
      order.promise.fulfil(.failure(error))
      if let end { throw end }
    }
  }
}
