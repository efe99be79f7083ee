extension NetworkDevice {
  /// Runs `body` once a queue pair of each of several devices, on the queue's loop, until one of the devices has ended; then closes the
  /// others.
  ///
  /// ```swift
  /// let devices = try await NetworkDevice.open(["tap:tap0", "tap:tap1"])
  /// try await NetworkDevice.run(devices) { queue, index in
  ///   try await devices[1 - index].queues[0].forward(from: queue.packets)
  /// }
  /// ```
  ///
  /// A device ends when its bodies have returned, or one has thrown, or the device broke. Deadline: none while they run; from the first
  /// end on, `resetTimeout` and a second. Cancellation closes all devices at once, as with `run(_:)` of one.
  ///
  /// - Parameters:
  ///   - devices: what to run; they need not have been opened together, though what they share stays on one loop then.
  ///   - body: is given the queue, and its device's place in `devices`.
  /// - Throws: what the first device to end threw: see `run(_:)` of one. What the others throw because they are closed for it is
  ///   dropped.
  public static func run(
    _ devices: [NetworkDevice], _ body: @escaping @Sendable (isolated NetworkQueue, Int) async throws -> Void
  ) async throws {
    try await run(devices, isolation: #isolation, body)
  }

  /// The same on the caller's actor: a closure stays there that captures it.
  private static func run(
    _ devices: [NetworkDevice], isolation: isolated (any Actor)?,
    _ body: @escaping @Sendable (isolated NetworkQueue, Int) async throws -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      _ = isolation
      for (index, device) in devices.enumerated() {
        // At once, on the caller's actor: not by the runtime's pool of threads.
        group.addImmediateTask { try await device.run { queue in try await body(queue, index) } }
      }
      let first = await group.nextResult()
      group.cancelAll()
      while await group.nextResult() != nil {}
      try first?.get()
    }
  }
}
