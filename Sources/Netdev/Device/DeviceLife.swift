internal import LibeventConcurrency
internal import Logging
internal import Synchronization

/// A device's life: one task on the control loop that connects, agrees, activates, serves, looks for a lost device, and ends it.
///
/// It is the only one that changes the device's state. Whatever happens elsewhere is an event in its mailbox: the program wants
/// an end, a queue broke, the driver wants attention. An end also cancels the step under way; everything else waits until the
/// step is over. After every await the mailbox is looked at before anything else is done. <doc:DeviceLife> has the table of
/// states and events.
actor DeviceLife {
  /// How far the device has come.
  enum State: String, Sendable { case connecting, agreed, running, lost, resetting, closed, failed }

  /// What reaches it from elsewhere.
  enum Event: Sendable {
    /// The pool is made and the loops are there: go on from `agreed`.
    case terms(Terms)
    /// The driver wants to be asked.
    case attention
    /// The program wants something of the device.
    case order(Order)
    /// It shall end, for this reason.
    case end(NetworkDeviceError)
  }

  /// What a device needs that those opened together share.
  struct Terms: Sendable {
    let pool: PacketPool
    let loops: [LoopExecutor]
  }

  nonisolated let loop: LoopExecutor
  nonisolated let link: LinkMonitor
  nonisolated let announcements = Announcements()
  nonisolated let log: DeviceLog
  nonisolated let driver: any NetworkDriver
  let settings: NetworkDevice.Configuration
  private let request: NetworkDriverRequest
  let room: OpeningRoom
  private let position: Int
  private let executor: LoopTaskExecutor
  /// An end has been asked for. What was sent to a queue's loop before looks here when it gets there.
  nonisolated let isEnding = Atomic<Bool>(false)

  /// Queue pairs in use, the first ones: all of them until the program wants fewer.
  nonisolated let activePairs = Atomic<Int>(0)

  private(set) var state = State.connecting
  var places: [QueuePlace] = []
  private var runningSince: UInt64 = 0
  private var losses = 0

  // The mailbox.
  var end: NetworkDeviceError?
  private var wantsAttention = false
  private var orders: [Order] = []
  /// The one that is being carried out.
  var presentOrder: Order?
  private var terms: Terms?
  private let mail = Gate()
  /// Ends the waiting of the step under way, or the pause.
  private var interruption: LoopPromise<Void>?

  // The end.
  private(set) var isOpened = false
  var isOver = false
  var failure: NetworkDeviceError?
  private var overdue: LoopTimer?
  let over = Gate()
  /// Why the device ended, if not because the program closed it.
  var brokenCause: NetworkDeviceError?

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(
    _ driver: any NetworkDriver, _ request: NetworkDriverRequest, at position: Int, in room: OpeningRoom,
    _ settings: NetworkDevice.Configuration, loop: LoopExecutor
  ) {
    self.driver = driver
    self.request = request
    self.position = position
    self.room = room
    var settings = settings
    settings.resetTimeout = settings.resetTimeout.bounded
    self.settings = settings
    self.loop = loop
    executor = LoopTaskExecutor(loop: loop)
    let log = DeviceLog(settings.logger)
    self.log = log
    link = LinkMonitor { log.write($0) }
  }

  /// Begins. The task is the device's only unstructured one: it holds this life until it is over, and whoever closes the device
  /// waits for that (`ended`).
  nonisolated func begin() { Task(executorPreference: executor) { await self.live() } }
}

// MARK: - The mailbox

extension DeviceLife {
  /// From any thread.
  nonisolated func post(_ event: Event) {
    if case .end = event { isEnding.store(true, ordering: .sequentiallyConsistent) }
    loop.execute { self.assumeIsolated { $0.receive(event) } }
  }

  func receive(_ event: Event) {
    switch event {
    case .terms(let terms): self.terms = terms
    case .attention: wantsAttention = true
    case .order(let order): orders.append(order)
    case .end(let cause):
      guard end == nil else { return }
      end = cause
      overdue?.schedule(after: settings.resetTimeout + .seconds(1))
      interruption?.fulfil(())
      // Nobody carries these out any more; the present one fails with its step.
      refuseOrders(cause)
    }
    mail.openAll()
  }

  /// Waits until the mailbox has what `take` takes.
  private func next<Mail>(_ take: () -> Mail?) async throws(NetworkDeviceError) -> Mail {
    while true {
      if let end { throw end }
      if let found = take() { return found }
      await mail.pass()
    }
  }

  /// What there is to do for a device that works.
  private enum Work {
    case attend
    case carryOut(Order)
  }

  private func takeWork() -> Work? {
    if wantsAttention {
      wantsAttention = false
      return .attend
    }
    return orders.isEmpty ? nil : .carryOut(orders.removeFirst())
  }

  func refuseOrders(_ cause: NetworkDeviceError) {
    for order in orders { order.promise.fulfil(.failure(cause)) }
    orders = []
  }
}

// MARK: - The life

extension DeviceLife {
  private func live() async {
    overdue = try? loop.makeTimer { [weak self] in self?.assumeIsolated { $0.giveUp() } }
    // An end that was there before the life began.
    if end != nil { overdue?.schedule(after: settings.resetTimeout + .seconds(1)) }
    if DriversInUse.claim(driver) {
      do throws(NetworkDeviceError) {
        try await open()
        try await serve()
      } catch {
        room.note(error)
        await takeDown(error)
      }
    } else {
      // Nothing of the driver is touched: it serves another device.
      room.note(
        NetworkDeviceError(
          .busy, "open", offered: "this driver object drives a device already",
          advice: "close that device first, or make a driver for each"))
      settle(nil)
    }
    overdue?.cancel()
    overdue = nil
  }

  /// From nothing to a device that works.
  private func open() async throws(NetworkDeviceError) {
    driver.attach(control: DeviceControl(loop: loop, link: link, announcements: announcements, life: self))
    let information = try await start()
    enter(.agreed)
    room.note(information, at: position)
    let terms = try await next { () -> Terms? in self.terms.take() }
    let configuration = terms.pool.configuration
    try await step(
      "the device knows the pool", ["slots": "\(configuration.slots)", "slotSize": "\(configuration.slotSize)"]
    ) { [driver] () async throws(NetworkDeviceError) in try await driver.attach(pool: terms.pool) }
    var queues: [NetworkQueue] = []
    for index in 0..<information.queuePairs { queues.append(try await makeQueue(index, information, terms)) }
    try await step("activated") { [driver] () async throws(NetworkDeviceError) in try await driver.activate() }
    enter(.running)
    isOpened = true
    activePairs.store(information.queuePairs, ordering: .sequentiallyConsistent)
    log.write(.debug, "device open", ["queuePairs": "\(information.queuePairs)"])
    room.note(queues, at: position)
  }

  private func start() async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    let asked: Logger.Metadata = [
      "queuePairs": "\(request.queuePairs.map { "\($0)" } ?? "any")",
      "queueSize": "\(request.queueSize.map { "\($0)" } ?? "any")",
    ]
    let information = try await step("agreed with the device", asked) {
      [driver, request, log] () async throws(NetworkDeviceError) in
      let information = try await driver.start(request)
      log.setName(information.name)
      return information
    }
    log.write(
      .debug, "the device",
      [
        "queuePairs": "\(information.queuePairs)", "queueSize": "\(information.queueSize)",
        "mtu": "\(information.mtu)", "hardwareAddress": "\(information.hardwareAddress.map { "\($0)" } ?? "none")",
      ])
    return information
  }

  private func makeQueue(
    _ index: Int, _ information: NetworkDeviceInformation, _ terms: Terms
  ) async throws(NetworkDeviceError) -> NetworkQueue {
    let place = QueuePlace(
      index: index, loop: terms.loops[index % terms.loops.count], pool: terms.pool,
      maximumFrameLength: information.maximumFrameLength)
    places.append(place)
    let busyPoll = settings.busyPoll
    return try await step("made a queue pair", ["queue": "\(index)", "loop": "\(place.loop.name)"]) {
      [self] () async throws(NetworkDeviceError) in
      let made = loop.call(on: place.loop) { [self] () -> NetworkDeviceError? in
        // The loop may come to it only when nobody wants it any more.
        guard !isEnding.load(ordering: .sequentiallyConsistent) else { return .openCancelled }
        do throws(NetworkDeviceError) {
          try place.fill(by: driver, busyPoll: busyPoll) { [log] notice in
            log.write(notice.level, notice.message, ["queue": "\(index)"])
          } onBroken: { [self] cause in
            post(.end(cause))
          }
          return nil
        } catch {
          return error
        }
      }
      switch await made.value(within: Self.loopPatience) {
      case .value(nil):
        guard let queue = place.queue else { throw .openCancelled }
        return queue
      case .value(let error?): throw error
      case .cancelled: throw .openCancelled
      case .timedOut:
        throw NetworkDeviceError(
          .timedOut, "making queue pair \(index)", offered: "its loop \(place.loop.name) did not answer",
          advice: "look for a job that blocks the loop")
      }
    }
  }

  /// How long a queue's loop may take to begin with something that is new to it.
  private static let loopPatience = Duration.seconds(5)

  func enter(_ state: State) {
    self.state = state
    if state == .running { runningSince = loop.now }
  }
}

// MARK: - Steps

extension DeviceLife {
  /// One step of the driver: in a child task, which an end cancels. Looks at the mailbox when it is over.
  ///
  /// A step has the deadlines that the driver gives it, message by message; what ends it early is the cancellation.
  func step<Result: Sendable>(
    _ name: String?, _ metadata: Logger.Metadata = [:],
    _ body: @escaping @Sendable () async throws(NetworkDeviceError) -> Result
  ) async throws(NetworkDeviceError) -> Result {
    if let end { throw end }
    let started = loop.now
    let interruption = LoopPromise<Void>(loop: loop)
    self.interruption = interruption
    let result = await withTaskGroup(of: Step<Result>.self) { group in
      group.addTask {
        do throws(NetworkDeviceError) { return .over(.success(try await body())) } catch {
          return .over(.failure(error))
        }
      }
      group.addTask {
        _ = await interruption.value()
        return .interrupted
      }
      var result: Swift.Result<Result, NetworkDeviceError> = .failure(.openCancelled)
      while let next = await group.next() {
        if case .over(let outcome) = next { result = outcome }
        // Either way the other one is of no more use.
        group.cancelAll()
      }
      return result
    }
    self.interruption = nil
    let error: NetworkDeviceError? = if case .failure(let error) = result { error } else { nil }
    if let name { log.write(step: name, since: started, loop, metadata, error) }
    if let end { throw end }
    return try result.get()
  }

  private enum Step<Result: Sendable>: Sendable {
    case over(Swift.Result<Result, NetworkDeviceError>)
    case interrupted
  }

  /// Waits, unless an end comes first.
  func pause(_ time: Duration) async throws(NetworkDeviceError) {
    if let end { throw end }
    let interruption = LoopPromise<Void>(loop: loop)
    self.interruption = interruption
    _ = await interruption.value(within: time)
    self.interruption = nil
    if let end { throw end }
  }
}

// MARK: - Serving and recovering

extension DeviceLife {
  /// Waits for the next event and handles it to its end before the next; throws the reason for the end.
  private func serve() async throws(NetworkDeviceError) {
    var delay: Duration?
    while true {
      if case .carryOut(let order) = try await next({ takeWork() }) {
        try await carryOut(order)
        continue
      }
      do throws(NetworkDeviceError) {
        try await step(nil) { [driver] () async throws(NetworkDeviceError) in try await driver.attend() }
      } catch {
        if let end { throw end }
        delay = try await recover(from: error, after: delay)
      }
    }
  }

  /// Looks for a lost device until it is there again.
  ///
  /// - Parameter previous: the pause that was due before the attempt that led to the present loss.
  /// - Returns: the pause that will be due if the device does not stay.
  private func recover(
    from cause: NetworkDeviceError, after previous: Duration?
  ) async throws(NetworkDeviceError) -> Duration {
    let stay = Duration.nanoseconds(Int64(clamping: loop.now &- runningSince))
    losses += 1
    let loss = "\(losses)"
    enter(.lost)
    try await step(nil) { [driver] () async throws(NetworkDeviceError) in await driver.suspend() }
    link.lose(cause)
    log.write(.debug, "the device is lost", ["loss": "\(loss)", "cause": "\(cause)"])
    guard let pauses = driver.recovery else { throw cause }
    var delay = pauses.first.bounded
    let longest = pauses.longest.bounded
    // A device that is lost again as soon as it is there is not called again at once.
    if let previous, stay < longest {
      try await pause(previous)
      delay = min(previous * 2, longest)
    }
    var reasons: Set<NetworkDeviceError.Code> = []
    while true {
      do throws(NetworkDeviceError) {
        try await step(nil) { [driver] () async throws(NetworkDeviceError) in try await driver.recover() }
        enter(.running)
        log.write(.debug, "the device is back", ["loss": "\(loss)"])
        link.regain()
        return delay
      } catch {
        if let end { throw end }
        // Each reason is news once.
        log.write(
          reasons.insert(error.code).inserted ? .notice : .debug, "the device is not back yet",
          ["loss": "\(loss)", "error": "\(error)", "again": "\(delay)"])
        // What the device lacks it will lack at the next attempt too; everything else may pass.
        if [.unsupported, .invalidConfiguration, .resetNotConfirmed].contains(error.code) { throw error }
      }
      try await pause(delay)
      delay = min(delay * 2, longest)
    }
  }
}
