import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import Testing

/// Packets made as they are asked for, with the numbers from zero up.
struct Made: PacketSequence {
  let count: Int
  let pool: PacketPool

  func makeAsyncIterator() -> Iterator { Iterator(count: count, pool: pool) }

  struct Iterator: PacketIterator {
    let count: Int
    let pool: PacketPool
    var next = 0

    nonisolated(nonsending) mutating func nextPacket() async -> Packet? {
      guard next < count, !Task.isCancelled else { return nil }
      defer { next += 1 }
      return try? Packet(copying: numbered(next), in: pool)
    }
  }
}

/// A device that takes a millisecond for each frame, by a clock of its own that goes on by a millisecond in each turn of the
/// loop: a thousand frames a second, however fast the machine is.
final class PacedDriver: NetworkDriver {
  /// What the device saw.
  struct Record: Sendable {
    /// By the device's clock, when the last frame was served.
    var time = Duration.zero
    var served = 0
    /// Frames that were not the next, by their position.
    var wrong: [Int] = []
    var mostInFlight = 0
    var leastFree = Int.max
  }

  let capacity: Int
  /// Served this many frames, the clock stands.
  let total: Int
  let pool: PacketPool
  private let state = Mutex(Record())

  init(capacity: Int, total: Int, pool: PacketPool) {
    self.capacity = capacity
    self.total = total
    self.pool = pool
  }

  /// The device's record, once it is closed.
  var record: Record { state.withLock { $0 } }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    NetworkDeviceInformation(
      name: "paced", hardwareAddress: [2, 0, 0, 0, 0, 1], mtu: 1500, queuePairs: 1, queueSize: capacity, headroom: 12,
      receiveBufferSize: 1514)
  }
  func attach(pool: PacketPool) async throws(NetworkDeviceError) {}
  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let queue = PacedQueue(self, slots: slots, signal: signal)
    let hook = unsafe TurnHook(
      stage: .device, context: Unmanaged.passUnretained(queue).toOpaque(), begin: { _ in },
      end: { unsafe Unmanaged<PacedQueue>.fromOpaque($0).takeUnretainedValue().passMillisecond() })
    // `drain`, at the end of the queue that holds it, takes the hook off the loop.
    do { queue.hook = (loop, try loop.addHook(hook)) } catch { throw NetworkDeviceError(.system, "addHook") }
    return queue
  }
  func activate() async throws(NetworkDeviceError) {}
  func reset(timeout: Duration) async throws(NetworkDeviceError) {}
  func shutDown() async {}
  fileprivate func finish(_ record: Record) { state.withLock { $0 = record } }
}

/// The queue of a paced device, on its loop.
private final class PacedQueue: QueueDriver {
  let driver: PacedDriver
  let slots: SlotTable
  let signal: QueueSignal
  var hook: (loop: LoopExecutor, token: TurnHook.Token)?
  var record = PacedDriver.Record()
  var held: [TransmitEntry] = []
  var released: [TransmitEntry] = []
  var posted: [UInt32] = []

  init(_ driver: PacedDriver, slots: SlotTable, signal: QueueSignal) {
    self.driver = driver
    self.slots = slots
    self.signal = signal
  }

  /// The clock goes on, and the frame that was being served is released. True from the first frame until all are.
  func passMillisecond() -> Bool {
    guard record.served < driver.total, record.served > 0 || !held.isEmpty else { return false }
    record.time += .milliseconds(1)
    record.leastFree = min(record.leastFree, driver.pool.free)
    guard let entry = held.first else { return true }
    let number = unsafe slots.start(of: entry.slot).loadUnaligned(as: Int.self)
    if number != record.served || slots.length(of: entry.slot) != 64 { record.wrong.append(record.served) }
    record.served += 1
    released.append(held.removeFirst())
    signal.interrupt()
    return true
  }

  var transmitCapacity: Int { driver.capacity }

  func transmit(_ entries: Span<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, driver.capacity - held.count - released.count)
    for position in 0..<count { held.append(entries[position]) }
    record.mostInFlight = max(record.mostInFlight, held.count + released.count)
    return count
  }

  func takeReleased(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, released.count)
    for position in 0..<count { entries[position] = released[position] }
    released.removeFirst(count)
    return count
  }

  func takeReceived(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int { 0 }
  var receiveRoom: Int { driver.capacity - posted.count }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    for position in 0..<slots.count { posted.append(slots[position]) }
    return slots.count
  }

  func ring() {}
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool { released != .never && !self.released.isEmpty }
  func disarm() {}

  func drain(transmitted: (TransmitEntry) -> Void, posted: (UInt32) -> Void) {
    if let hook { try? hook.loop.removeHook(hook.token) }
    for entry in held + released { transmitted(entry) }
    for slot in self.posted { posted(slot) }
    driver.finish(record)
  }

  var statistics: QueueDriverStatistics { QueueDriverStatistics() }
}

@Suite(.timeLimit(.minutes(5))) struct PipelineTests {
  @Test func `a million frames to a device that serves a thousand a second: bounded memory, none dropped, in order`()
    async throws
  {
    let total = 1_000_000
    let ring = 64
    let bound = 48
    let pool = try PacketPool(.init(slots: 512))
    let driver = PacedDriver(capacity: ring, total: total, pool: pool)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let queue = device.queues[0]
    try await queue.forward(from: Made(count: total, pool: pool), inFlight: bound)
    #expect(queue.statistics.packetsReleased == UInt64(total))
    #expect(queue.statistics.packetsFailed == 0)
    try await device.close()
    let record = driver.record
    #expect(record.served == total)
    #expect(record.wrong.isEmpty)
    // It never had to wait for a frame.
    #expect(record.time == .milliseconds(total))
    // The source is faster: the device always has as many as it may, and nothing lies anywhere else but in the pool.
    #expect(record.mostInFlight == bound)
    #expect(record.leastFree >= pool.configuration.slots - ring - bound)
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `cancelling a pipeline waits for what is in flight and leaves the pool whole`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 32)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let pool = device.pool
    let outcome = Outcome()
    let task = Task { await outcome.record { try await queue.forward(from: Made(count: .max, pool: pool)) } }
    try await eventually("the ring is full") { await driver.held() == 32 }
    task.cancel()
    await turn(queue, times: 100)
    #expect(outcome.finished == 0)
    await driver.releaseAll()
    try await eventually("it returns") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == [.cancelled])
    try await device.close()
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `map, compactMap and filter change packets in place, on the loop, and drop what they leave out`()
    async throws
  {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let pool = device.pool
    for number in 0..<40 { #expect(await driver.deliver(numbered(number))) }
    try await device.run { queue in
      let even = queue.packets
        .filter { $0.number.isMultiple(of: 2) }
        .compactMap { (packet: consuming Packet) -> Packet? in
          #expect(queue.loop.isOnLoop)
          packet.withMutableBytes { $0.storeBytes(of: 0xee, toByteOffset: 20, as: UInt8.self) }
          return packet
        }
      var seen: [Int] = []
      for await packet in even {
        #expect(packet.array[20] == 0xee)
        seen.append(packet.number)
        if seen.count == 15 { break }
      }
      var rest: [Int] = []
      for await number in queue.packets.map({ (packet: consuming Packet) in packet.number }) {
        rest.append(number)
        if rest.count == 11 { break }
      }
      #expect(seen == (0..<15).map { $0 * 2 })
      #expect(rest == Array(29..<40))
    }
    #expect(pool.copies == 0)
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `a pipeline from one queue's packets to another takes no more than it may, and ends with its source`()
    async throws
  {
    let source = ScriptedDriver(mode: .hold)
    let sink = ScriptedDriver(mode: .hold)
    let pool = try PacketPool(.init(slots: 4096))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let from = try await NetworkDevice.open(driver: source, configuration: configuration)
    let to = try await NetworkDevice.open(driver: sink, configuration: configuration)
    let input = from.queues[0]
    let output = to.queues[0]
    for number in 0..<100 { #expect(await source.deliver(numbered(number))) }
    let outcome = Outcome()
    Task { await outcome.record { try await output.forward(from: input.packets, inFlight: 10) } }
    for number in 0..<100 {
      try await eventually("frame \(number) is published") { await sink.held() > 0 }
      #expect(await sink.held() <= 10)
      #expect(await sink.heldBytes(at: 0) == numbered(number))
      await sink.release(at: 0)
    }
    try await from.close()
    try await eventually("the pipeline ends with its source") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    #expect(pool.copies == 0)
    try await to.close()
    #expect(pool.free == pool.configuration.slots)
  }
}
