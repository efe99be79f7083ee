import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import Synchronization
import TestSupport
import Testing

/// Receive buffers while a turn is long.
@Suite(.timeLimit(.minutes(2))) struct RefillTests {
  @Test func `a device that is never behind finds receive buffers at every look, also within a turn`() async throws {
    let driver = EndlessDriver(capacity: 64)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 512, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    try await device.run { queue in
      var count = 0
      for await packet in queue.packets {
        _ = consume packet
        count += 1
        if count == 3000 { break }
      }
    }
    #expect(driver.looks > 40)
    #expect(driver.dryLooks == 0)
    #expect(device.pool.free == 512)
  }

  @Test func `a loopback without receive buffers lets its loop sleep, and goes on when there are some`() async throws {
    let driver = ScriptedDriver(mode: .loopback, capacity: 16)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 64, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let (queue, pool) = (device.queues[0], device.pool)
    // Nobody fetches these, so no buffer is posted in their place.
    for number in 0..<16 { #expect(await driver.deliver(numbered(number))) }
    try await queue.submit(Packet(copying: numbered(16), in: pool))
    let sleeps = queue.loop.statistics.sleeps
    try await eventually("the loop sleeps, whenever it has been woken") {
      await turn(queue, times: 1)
      return queue.loop.statistics.sleeps >= sleeps + 3
    }
    #expect(await driver.held() == 1)
    var numbers: [Int] = []
    for await packet in queue.packets {
      numbers.append(packet.number)
      if numbers.count == 17 { break }
    }
    #expect(numbers == Array(0...16))
    try await device.close()
    #expect(pool.free == 64)
  }

  @Test func `a loop that sleeps between bursts takes no buffer from the list that all queues share`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 64)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 1024, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let (queue, pool) = (device.queues[0], device.pool)
    var available: [Int] = []
    for _ in 0..<4 {
      for number in 0..<48 { #expect(await driver.deliver(numbered(number))) }
      var left = 48
      while left > 0, let burst = await queue.receiveBurst() {
        left -= burst.count
        try await queue.submit(burst)
      }
      try await eventually("all are with the device") { await driver.held() == 48 }
      available.append(pool.available)
      await driver.releaseAll()
      let sleeps = queue.loop.statistics.sleeps
      try await eventually("they are back, and the loop sleeps") {
        await turn(queue, times: 1)
        return queue.statistics.packetsReleased == queue.statistics.packetsSubmitted
          && queue.loop.statistics.sleeps >= sleeps + 3
      }
      available.append(pool.available)
    }
    // What the first burst took stays with the queue.
    #expect(Set(available).count == 1, "\(available)")
    try await device.close()
    #expect(pool.free == 1024)
  }
}

/// A device with a frame for every buffer it is given, at once.
private final class EndlessDriver: NetworkDriver {
  private let capacity: Int
  private let seen = Mutex<(looks: Int, dry: Int)>((0, 0))
  /// A device that was reset has no more frames.
  fileprivate let stopped = Atomic<Bool>(false)

  init(capacity: Int) { self.capacity = capacity }

  /// How often it was asked for frames, and how often it had no buffer for one then.
  var looks: Int { seen.withLock { $0.looks } }
  var dryLooks: Int { seen.withLock { $0.dry } }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    NetworkDeviceInformation(
      name: "endless", hardwareAddress: MACAddress(2, 0, 0, 0, 0, 1), mtu: 1500, queuePairs: 1, queueSize: capacity,
      headroom: 12,
      receiveBufferSize: 1514)
  }

  func attach(pool: PacketPool) async throws(NetworkDeviceError) {}
  func activate() async throws(NetworkDeviceError) {}
  func reset(timeout: Duration) async throws(NetworkDeviceError) { stopped.store(true, ordering: .releasing) }
  func shutDown() async {}

  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    EndlessQueue(driver: self, capacity: capacity, slots: slots)
  }

  fileprivate func note(isDry: Bool) {
    seen.withLock { seen in
      seen.looks += 1
      if isDry { seen.dry += 1 }
    }
  }
}

private final class EndlessQueue: QueueDriver {
  private let driver: EndlessDriver
  private let capacity: Int
  private let slots: SlotTable
  private var posted: [UInt32] = []

  init(driver: EndlessDriver, capacity: Int, slots: SlotTable) {
    self.driver = driver
    self.capacity = capacity
    self.slots = slots
  }

  var transmitCapacity: Int { capacity }
  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int { 0 }
  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int { 0 }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    if driver.stopped.load(ordering: .acquiring) { return 0 }
    driver.note(isDry: posted.isEmpty)
    let count = min(entries.count, posted.count)
    for position in 0..<count {
      slots.setReceived(slot: posted[position], length: 60)
      entries[position] = FrameEntry(receivedIn: posted[position])
    }
    posted.removeFirst(count)
    return count
  }

  var receiveRoom: Int { capacity - posted.count }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    for position in 0..<slots.count { posted.append(slots[position]) }
    return slots.count
  }

  func ring() {}
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool { received && !posted.isEmpty }
  func disarm() {}

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    for slot in self.posted { posted(slot) }
    self.posted = []
  }

  var statistics: QueueDriverStatistics { QueueDriverStatistics() }
}
