internal import LibeventConcurrency
internal import Synchronization

/// Where devices that are opened together meet: on their control loop. All of them come to a stage, or the first that fails
/// ends the waiting.
actor OpeningRoom {
  private nonisolated let loop: LoopExecutor
  private var found: [NetworkDeviceInformation?]
  private var made: [[NetworkQueue]?]
  private var failure: NetworkDeviceError?
  private let gate = Gate()

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(loop: LoopExecutor, devices: Int) {
    self.loop = loop
    found = Array(repeating: nil, count: devices)
    made = Array(repeating: nil, count: devices)
  }

  // MARK: For the lives, on the loop

  /// The driver at this place has started.
  nonisolated func note(_ information: NetworkDeviceInformation, at position: Int) {
    assumeIsolated { room in
      room.found[position] = information
      room.gate.openAll()
    }
  }

  /// The device at this place works.
  nonisolated func note(_ queues: [NetworkQueue], at position: Int) {
    assumeIsolated { room in
      // Nobody fetches them any more, and a queue holds its life, which holds this room.
      guard room.failure == nil else { return }
      room.made[position] = queues
      room.gate.openAll()
    }
  }

  /// A device has failed, or ended.
  nonisolated func note(_ error: NetworkDeviceError) {
    assumeIsolated { room in
      if room.failure == nil { room.failure = error }
      room.made = []
      room.gate.openAll()
    }
  }

  // MARK: For whoever opens them, from any task

  /// Waits until every driver has started. Cancelling the task ends the devices.
  func informations(of lives: [DeviceLife]) async throws(NetworkDeviceError) -> [NetworkDeviceInformation] {
    try await all(lives) { found.compactMap { $0 } }
  }

  /// Waits until every device works, and takes their queues. Cancelling the task ends the devices.
  func queues(of lives: [DeviceLife]) async throws(NetworkDeviceError) -> [[NetworkQueue]] {
    let queues = try await all(lives) { made.compactMap { $0 } }
    made = []
    return queues
  }

  private func all<Value>(
    _ lives: [DeviceLife], _ there: () -> [Value]
  ) async throws(NetworkDeviceError) -> [Value] {
    while true {
      if let failure { throw failure }
      let values = there()
      if values.count == found.count { return values }
      await withTaskCancellationHandler {
        // Through `self`: a closure that does not use it would leave the actor, and the gate belongs to the loop.
        await self.park()
      } onCancel: {
        for life in lives { life.post(.end(.openCancelled)) }
      }
    }
  }

  private func park() async { await gate.pass() }
}

/// The driver objects that drive a device now: one device at a time each.
enum DriversInUse {
  private static let drivers = Mutex<Set<ObjectIdentifier>>([])

  /// False when the driver drives a device already. Whoever claims a driver keeps it alive until it is released.
  static func claim(_ driver: any NetworkDriver) -> Bool {
    drivers.withLock { $0.insert(ObjectIdentifier(driver)).inserted }
  }

  static func release(_ driver: any NetworkDriver) {
    drivers.withLock { _ = $0.remove(ObjectIdentifier(driver)) }
  }
}
