import LibeventConcurrency
import Netdev
import PacketFormats
import Synchronization

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
      name: "paced", hardwareAddress: MACAddress(2, 0, 0, 0, 0, 1), mtu: 1500, queuePairs: 1, queueSize: capacity,
      headroom: 12,
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
  var held: [FrameEntry] = []
  var released: [FrameEntry] = []
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

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, driver.capacity - held.count - released.count)
    for position in 0..<count { held.append(entries[position]) }
    record.mostInFlight = max(record.mostInFlight, held.count + released.count)
    return count
  }

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, released.count)
    for position in 0..<count { entries[position] = released[position] }
    released.removeFirst(count)
    return count
  }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int { 0 }
  var receiveRoom: Int { driver.capacity - posted.count }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    for position in 0..<slots.count { posted.append(slots[position]) }
    return slots.count
  }

  func ring() {}
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool { released != .never && !self.released.isEmpty }
  func disarm() {}

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    if let hook { try? hook.loop.removeHook(hook.token) }
    for entry in held + released { transmitted(entry) }
    for slot in self.posted { posted(slot) }
    driver.finish(record)
  }

  var statistics: QueueDriverStatistics { QueueDriverStatistics() }
}
