internal import LibeventConcurrency
internal import Logging

// Opening: one device, or several that share a pool and loops, so that frames go from one to another as they lie.
extension NetworkDevice {
  /// Opens the device that `driver` drives: negotiates, makes pool, loops and queues, and starts it.
  ///
  /// How long it may take is the driver's to say (a vhost-user device: `connect_timeout`, and a time-out a message). Cancelling
  /// the task ends it, within `resetTimeout` and a second.
  ///
  /// - Throws: whatever the driver refuses, `cancelled` when the task was cancelled, `busy` when the driver drives a device
  ///   already; everything made so far is then taken down again.
  public static func open(
    driver: any NetworkDriver, configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    let opening = Opening(driver: driver, request: configuration.request)
    let devices = try await open([opening], configuration)
    return devices[0]
  }

  /// Opens several devices on one pool that fits them all, unless the configuration brings one, and on the same loops: queue i of
  /// each lives on loop i. Forwarding between them copies nothing and stays on its loop. They start at the same time, and each
  /// is closed by itself.
  ///
  /// - Returns: the devices, in the order of their drivers.
  /// It takes as long as `open(driver:configuration:)`, and is cancelled like it.
  ///
  /// - Throws: what the first driver that failed refused; all of them are then taken down again.
  public static func open(
    drivers: [any NetworkDriver], configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    try await open(drivers.map { Opening(driver: $0, request: configuration.request) }, configuration)
  }

  /// The same, for drivers that are asked for different things.
  package static func open(
    _ openings: [Opening], _ configuration: Configuration
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    try await RuntimeDescriptors.secure()
    let loop = try makeControlLoop(configuration)
    let room = OpeningRoom(loop: loop, devices: openings.count)
    let lives = openings.enumerated().map { position, opening in
      DeviceLife(opening.driver, opening.request, at: position, in: room, configuration, loop: loop)
    }
    for life in lives { life.begin() }
    do throws(NetworkDeviceError) {
      let informations = try await room.informations(of: lives)
      let keptPackets = configuration.keptPackets
      try PacketPool.Configuration.check(keptPackets: keptPackets, for: informations)
      let pool =
        if let given = configuration.pool { given } else { try await makePool(informations, keptPackets: keptPackets) }
      if let advice = pool.configuration.advice(for: informations, keptPackets: keptPackets) {
        configuration.logger.aside.notice(
          "\(advice)", metadata: ["device": "\(informations.map { $0.name }.joined(separator: ", "))"])
      }
      for information in informations { try pool.configuration.check(against: information) }
      let terms = DeviceLife.Terms(pool: pool, loops: try makeLoops(informations, configuration))
      for life in lives { life.post(.terms(terms)) }
      let queues = try await room.queues(of: lives)
      HopBack.keep()
      try RuntimeThreads.secure()
      try await RuntimeDescriptors.secure()
      if Task.isCancelled { throw .openCancelled }
      return lives.indices.map { position in
        NetworkDevice(
          information: informations[position], pool: pool, queues: queues[position], life: lives[position])
      }
    } catch {
      for life in lives { life.post(.end(error)) }
      for life in lives { _ = await life.ended() }
      throw error.broughtBack
    }
  }

  /// Its memory is made to be there, which takes its time: on no loop.
  private static func makePool(
    _ informations: [NetworkDeviceInformation], keptPackets: Int
  ) async throws(NetworkDeviceError) -> PacketPool {
    let make = { @Sendable in
      Result { () throws(NetworkDeviceError) in try PacketPool(.fitting(informations, keptPackets: keptPackets)) }
    }
    let aside = if BlockingCalls.wouldHoldLoop { await BlockingCalls.aside(make) } else { Aside.made(make()) }
    HopBack.keep()
    switch aside {
    case .made(let pool): return try pool.get()
    case .cancelled: throw .openCancelled
    // Calls of others that are stuck are none of its affair: this one takes some milliseconds, here too.
    case .refused: return try make().get()
    }
  }

  private static func makeControlLoop(
    _ configuration: Configuration
  ) throws(NetworkDeviceError) -> LoopExecutor {
    if let given = configuration.controlLoop { return given }
    do {
      let name = "netdev-control"
      return try LoopExecutor(
        name: name, stallBound: configuration.stallBound, reports: LoopReports(configuration.logger, loop: name))
    } catch {
      throw NetworkDeviceError(.system, "starting the control loop", offered: error.description)
    }
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
    let cpu = configuration.cpus.isEmpty ? nil : configuration.cpus[index % configuration.cpus.count]
    do {
      return try LoopExecutor(
        name: name, cpu: cpu, stallBound: configuration.stallBound,
        reports: LoopReports(configuration.logger, loop: name))
    } catch {
      throw NetworkDeviceError(
        .system, "starting the loop of queue \(index)", offered: error.description,
        advice: cpu == nil ? "" : "name a CPU that this machine has")
    }
  }
}

/// A device on its way to being open.
package struct Opening: Sendable {
  package let driver: any NetworkDriver
  let request: NetworkDriverRequest

  /// A device that `driver` shall drive, and what is asked of it.
  package init(driver: any NetworkDriver, request: NetworkDriverRequest) {
    self.driver = driver
    self.request = request
  }
}

extension NetworkDevice.Configuration {
  fileprivate var request: NetworkDriverRequest { NetworkDriverRequest(queuePairs: queuePairs, queueSize: queueSize) }
}
