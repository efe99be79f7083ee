import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Frames whose length only the driver finds too long: each fails alone, whenever that is.
@Suite(.timeLimit(.minutes(2))) struct LengthTests {
  /// The count of frames accepted in a turn once trapped here: a frame that had waited when the turn began and failed in it
  /// takes one from the count, which was taken for a number that only grows.
  @Test func `a frame that waited when a turn began and fails in it is no frame of that turn`() async throws {
    let driver = LateRefusal()
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let (good, long) = (Outcome(), Outcome())
    Task { await good.record { try await queue.send(Packet(copying: numbered(0), in: device.pool)) } }
    try await eventually("the short frame is out") { queue.statistics.packetsSubmitted == 1 }
    Task { await long.record { try await queue.send(Packet(copying: numbered(1, count: 2000), in: device.pool)) } }
    // Offered anew each turn: a turn has begun with it.
    try await eventually("the long frame waits") { driver.putOff.load(ordering: .acquiring) >= 3 }
    let receiving = Task {
      await queue.run { queue in
        // The wait publishes: the frame fails. Then it finds the other one's release, and counts again what may be sent.
        driver.refuses.store(true, ordering: .releasing)
        for await _ in queue.packets {}
      }
    }
    try await eventually("both sends end") { good.finished == 1 && long.finished == 1 }
    #expect(good.errors.isEmpty)
    #expect(long.errors.map { $0.code } == [.frameTooLong])
    try await queue.send(Packet(copying: numbered(2), in: device.pool))
    let counts = queue.statistics
    #expect(counts.packetsSubmitted == 2 && counts.packetsReleased == 2 && counts.packetsFailed == 1)
    try await device.close()
    await receiving.value
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}

/// The scripted driver, which takes shorter frames than it says. It leaves one that is too long until it is told to refuse,
/// and reports no release before it has.
private final class LateRefusal: NetworkDriver {
  /// Times that the long frame was left.
  let putOff = Atomic<Int>(0)
  let refuses = Atomic<Bool>(false)
  private let inner = ScriptedDriver(mode: .release)

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    var information = try await inner.start(request)
    information.mtu = 3000
    information.maximumFrameLength = 3014
    information.receiveBufferSize = 3014
    return information
  }

  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    Queue(try inner.makeQueue(index: index, loop: loop, slots: slots, signal: signal), slots: slots, driver: self)
  }

  var recovery: RecoveryPauses? { inner.recovery }
  func attach(control: DeviceControl) { inner.attach(control: control) }
  func attend() async throws(NetworkDeviceError) { try await inner.attend() }
  func suspend() async { await inner.suspend() }
  func recover() async throws(NetworkDeviceError) { try await inner.recover() }
  func attach(pool: PacketPool) async throws(NetworkDeviceError) { try await inner.attach(pool: pool) }
  func activate() async throws(NetworkDeviceError) { try await inner.activate() }
  func reset(timeout: Duration) async throws(NetworkDeviceError) { try await inner.reset(timeout: timeout) }
  func shutDown() async { await inner.shutDown() }

  private final class Queue: QueueDriver {
    private let inner: any QueueDriver
    private let slots: SlotTable
    private let driver: LateRefusal
    private var hasRefused = false

    init(_ inner: any QueueDriver, slots: SlotTable, driver: LateRefusal) {
      self.inner = inner
      self.slots = slots
      self.driver = driver
    }

    var transmitCapacity: Int { inner.transmitCapacity }

    func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
      guard entries.count > 0, slots.length(of: entries[0].slot) > 1514 else { return try inner.transmit(entries) }
      guard driver.refuses.load(ordering: .acquiring) else {
        driver.putOff.add(1, ordering: .releasing)
        return 0
      }
      hasRefused = true
      return try inner.transmit(entries)
    }

    func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
      hasRefused ? try inner.takeReleased(into: &entries) : 0
    }

    func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
      try inner.takeReceived(into: &entries)
    }

    var receiveRoom: Int { inner.receiveRoom }
    func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int { try inner.post(slots) }
    func ring() { inner.ring() }
    /// The loop goes on turning while a frame waits.
    func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
      inner.arm(received: received, released: released) || !hasRefused
    }
    func disarm() { inner.disarm() }
    func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
      inner.drain(transmitted: transmitted, posted: posted)
    }
    var statistics: QueueDriverStatistics { inner.statistics }
  }
}
