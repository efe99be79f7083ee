internal import CSimulation
public import Netdev
internal import NetdevDevices

/// The world that a program lives in: its devices, its clock and its chance.
///
/// Used by the tasks of the world, which all live on its thread.
public final class SimulatedWorld: @unchecked Sendable {
  // Proof of Sendable: touched on the world's thread only, which `schedule` checks.
  let schedule: WorldSchedule
  private var pools: [PacketPool] = []
  private(set) var isOver = false
  private(set) var error: (any Error)?

  init(_ schedule: WorldSchedule) { self.schedule = schedule }

  /// Whoever runs the world waits for the end of its program.
  func begin(_ program: Program) {
    program.begin(in: schedule)
    mayCancel(program.task)
  }

  fileprivate func live(_ body: @escaping @Sendable (SimulatedWorld) async throws -> Void) async {
    guard !schedule.isEnded else { return }
    var thrown: (any Error)?
    do { try await body(self) } catch { thrown = error }
    // A thread that lets go of an actor goes on with the task that waits for it, as its own.
    guard schedule.expectHere("has gone on with the body: it held an actor that the body called") else { return }
    error = thrown
    isOver = true
    schedule.incidents.end()
  }

  /// Rings whenever something has passed through the world's kernel.
  func newsBell(_ name: String) -> SimulatedBell {
    let bell = SimulatedBell(name, schedule)
    schedule.listen(bell)
    return bell
  }

  func findLeftovers() {
    for (number, pool) in pools.enumerated() where pool.free != pool.configuration.slots {
      schedule.find("pool \(number): \(pool.configuration.slots - pool.free) buffers have not come home")
    }
    pools = []
  }
}

/// The first task of a world: made by its caller, whose task-local values it has, and run by the world.
struct Program: Sendable {
  let task: Task<Void, Never>
  /// The address of its first job, which belongs to whoever runs it, once.
  private let job: UInt

  init(_ world: SimulatedWorld, _ body: @escaping @Sendable (SimulatedWorld) async throws -> Void) {
    var job: UnsafeMutableRawPointer?
    task = unsafe withUnsafeMutablePointer(to: &job) { place in
      unsafe simulation_capture(place)
      defer { simulation_capture(nil) }
      return Task(priority: .medium) { await world.live(body) }
    }
    self.job = UInt(bitPattern: job)
  }

  func begin(in schedule: WorldSchedule) {
    guard let job = unsafe UnsafeMutableRawPointer(bitPattern: job) else { return }
    unsafe schedule.enqueue(job)
    schedule.nameNewest("the body")
  }

  /// Ends it without its world.
  func abandon(_ schedule: WorldSchedule) {
    schedule.end()
    if let job = unsafe UnsafeMutableRawPointer(bitPattern: job) { unsafe simulation_run(job) }
  }
}

// MARK: - Devices

extension SimulatedWorld {
  /// Opens a device of this world, as `NetworkDevice.open` does everywhere; at the end all buffers of its pool must be home.
  ///
  /// - Throws: as `NetworkDevice.open`.
  public func open(
    _ url: String, configuration: NetworkDevice.Configuration = NetworkDevice.Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    try expectHere()
    let device = try await NetworkDevice.open(url, configuration: configuration)
    watch(device.pool)
    mayDisturb(device)
    return device
  }

  /// Opens several devices on one pool and the same loops.
  ///
  /// - Throws: as `NetworkDevice.open`.
  public func open(
    _ urls: [String], configuration: NetworkDevice.Configuration = NetworkDevice.Configuration()
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    try expectHere()
    let devices = try await NetworkDevice.open(urls, configuration: configuration)
    for device in devices {
      watch(device.pool)
      mayDisturb(device)
    }
    return devices
  }

  /// Opens a device by a driver of the program's, as `NetworkDevice.open` does everywhere, and treats it as one opened by its URL.
  ///
  /// - Throws: as `NetworkDevice.open`.
  public func open(
    driver: any NetworkDriver, configuration: NetworkDevice.Configuration = NetworkDevice.Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    try expectHere()
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    watch(device.pool)
    mayDisturb(device)
    return device
  }

  /// Elsewhere than in this world a device would be the machine's.
  private func expectHere() throws(NetworkDeviceError) {
    guard SimulationThread.current === schedule else {
      throw NetworkDeviceError(.closed, "opening a device of a world that is over, or elsewhere than in it")
    }
  }

  /// At the end all buffers of this pool must be home.
  public func watch(_ pool: PacketPool) {
    guard schedule.expectHere("tells the world of a pool") else { return }
    if !pools.contains(where: { $0 === pool }) { pools.append(pool) }
  }
}

// MARK: - Clock and chance

extension SimulatedWorld {
  /// A number below `bound`, from the seed; 0 where there is none.
  public func choose(below bound: Int) -> Int { isAtHand ? schedule.random.below(bound) : 0 }

  /// True once in `times`, on average; always where that is less than 2.
  public func chance(oneIn times: Int) -> Bool { isAtHand && schedule.random.oneIn(times) }

  /// Its chance is drawn from on its own thread only: elsewhere the order of draws would be the machine's.
  private var isAtHand: Bool { schedule.expectHere("draws from the world's chance") }

  /// What the clock shows.
  public var now: Duration {
    schedule.mayRead("reads the world's clock") ? .nanoseconds(Int64(clamping: schedule.now)) : .zero
  }

  /// A word in the trace.
  public func note(_ text: String) {
    if schedule.expectHere("writes in the world's trace") { schedule.note(.note(text)) }
  }

  /// Says that something is wrong: the run fails with this; after the world's end, a line on the standard error.
  public func find(_ text: String) {
    if SimulationThread.current === schedule { schedule.find(text) } else { schedule.find(stranger: text) }
  }
}
