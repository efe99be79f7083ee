internal import LibeventConcurrency
internal import Logging

// Opening: one device, or several that share a pool and loops, so that frames go from one to another as they lie.
extension NetworkDevice {
  /// Opens the device that `driver` drives: negotiates, makes pool, loops and queues, and starts it.
  ///
  /// - Throws: whatever the driver refuses; everything made so far is then taken down again.
  public static func open(
    driver: any NetworkDriver, configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    let opening = Opening(driver: driver, request: configuration.request, configuration)
    let devices = try await open([opening], configuration)
    return devices[0]
  }

  /// Opens several devices on one pool that fits them all, unless the configuration brings one, and on the same loops: queue i of
  /// each lives on loop i. Forwarding between them copies nothing and stays on its loop. They start at the same time, and each
  /// is closed by itself.
  ///
  /// - Returns: the devices, in the order of their drivers.
  /// - Throws: what the first driver that failed refused; all of them are then taken down again.
  public static func open(
    drivers: [any NetworkDriver], configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    try await open(drivers.map { Opening(driver: $0, request: configuration.request, configuration) }, configuration)
  }

  /// The same, for drivers that are asked for different things.
  package static func open(
    _ parts: [(driver: any NetworkDriver, request: NetworkDriverRequest)], configuration: Configuration
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    try await open(parts.map { Opening(driver: $0.driver, request: $0.request, configuration) }, configuration)
  }

  private static func open(
    _ openings: [Opening], _ configuration: Configuration
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    do throws(NetworkDeviceError) {
      let informations = try await start(openings)
      let pool = if let given = configuration.pool { given } else { try PacketPool(.fitting(informations)) }
      for information in informations { try pool.configuration.check(against: information) }
      for opening in openings { try await opening.driver.attach(pool: pool) }
      let loops = try makeLoops(informations, configuration)
      var devices: [NetworkDevice] = []
      for (opening, information) in zip(openings, informations) {
        devices.append(try await opening.finish(information, pool, loops, configuration))
      }
      return devices
    } catch {
      for opening in openings { try? await opening.closer.close(error) }
      throw error
    }
  }

  /// Starts all drivers at the same time, as their peers may wait for one another; the first failure ends the waiting of all.
  private static func start(
    _ openings: [Opening]
  ) async throws(NetworkDeviceError) -> [NetworkDeviceInformation] {
    // One has nobody to wait for, and starts where its caller is.
    if openings.count == 1 { return [try await openings[0].start(0).result.get()] }
    var informations = [NetworkDeviceInformation?](repeating: nil, count: openings.count)
    var failure: NetworkDeviceError?
    await withTaskGroup(of: Start.self) { group in
      for (position, opening) in openings.enumerated() { group.addTask { await opening.start(position) } }
      while let start = await group.next() {
        switch start.result {
        case .success(let information): informations[start.position] = information
        case .failure(let error):
          if failure == nil { failure = error }
          group.cancelAll()
        }
      }
    }
    if let failure { throw failure }
    return informations.compactMap { $0 }
  }

  private static func makeLoops(
    _ informations: [NetworkDeviceInformation], _ configuration: Configuration
  ) throws(NetworkDeviceError) -> [LoopExecutor] {
    if !configuration.loops.isEmpty { return configuration.loops }
    let name = informations.count == 1 ? informations[0].name : "\(informations.count) devices"
    var loops: [LoopExecutor] = []
    for index in 0..<(informations.map { $0.queuePairs }.max() ?? 0) {
      loops.append(try makeLoop("\(name)/\(index)", index, configuration))
    }
    return loops
  }

  private static func makeLoop(
    _ name: String, _ index: Int, _ configuration: Configuration
  ) throws(NetworkDeviceError) -> LoopExecutor {
    let logger = configuration.logger
    let cpu = configuration.cpus.isEmpty ? nil : configuration.cpus[index % configuration.cpus.count]
    do {
      return try LoopExecutor(
        name: name, cpu: cpu, stallBound: configuration.stallBound,
        onStall: { length in
          logger.warning("a job held the loop", metadata: ["queue": "\(name)", "length": "\(length)"])
        },
        onSpin: { turns in
          logger.warning("the loop turns and does nothing", metadata: ["queue": "\(name)", "turns": "\(turns)"])
        })
    } catch {
      throw NetworkDeviceError(
        .system, "starting the loop of queue \(index)", offered: error.description,
        advice: cpu == nil ? "" : "name a CPU that this machine has")
    }
  }
}

/// What came of starting one of several drivers.
private struct Start: Sendable {
  let position: Int
  let result: Result<NetworkDeviceInformation, NetworkDeviceError>
}

/// A device on its way to being open.
private struct Opening: Sendable {
  let driver: LoggedDriver
  let request: NetworkDriverRequest
  let link = LinkMonitor()
  let closer: DeviceCloser

  init(driver: any NetworkDriver, request: NetworkDriverRequest, _ configuration: NetworkDevice.Configuration) {
    let driver = LoggedDriver(driver, logger: configuration.logger)
    self.driver = driver
    self.request = request
    let link = link
    driver.watchLink { link.note($0) }
    closer = DeviceCloser(driver: driver, link: link, timeout: configuration.resetTimeout)
  }

  func start(_ position: Int) async -> Start {
    do throws(NetworkDeviceError) {
      return Start(position: position, result: .success(try await driver.start(request)))
    } catch {
      return Start(position: position, result: .failure(error))
    }
  }

  /// Makes the queues of a driver that has started and knows the pool, and lets the device begin.
  func finish(
    _ information: NetworkDeviceInformation, _ pool: PacketPool, _ loops: [LoopExecutor],
    _ configuration: NetworkDevice.Configuration
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    var queues: [NetworkQueue] = []
    let closer = closer
    for index in 0..<information.queuePairs {
      let queue = NetworkQueue(
        index: index, loop: loops[index % loops.count], pool: pool,
        maximumFrameLength: information.maximumFrameLength)
      closer.add(queue)
      try await queue.prepare(driver: driver, busyPoll: configuration.busyPoll) { cause in
        Task { try? await closer.close(cause) }
      }
      queues.append(queue)
    }
    try await driver.activate()
    configuration.logger.debug(
      "device open", metadata: ["device": "\(information.name)", "queuePairs": "\(information.queuePairs)"])
    return NetworkDevice(
      information: information, pool: pool, queues: queues, driver: driver, link: link, closer: closer)
  }
}

extension NetworkDevice.Configuration {
  fileprivate var request: NetworkDriverRequest { NetworkDriverRequest(queuePairs: queuePairs, queueSize: queueSize) }
}
