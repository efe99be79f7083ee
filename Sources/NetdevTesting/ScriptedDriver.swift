internal import CNetdevSystem
public import LibeventConcurrency
public import Netdev
internal import PacketFormats
internal import Synchronization

/// A driver whose device does what a test tells it: hold buffers, release exactly one, deliver a frame, never confirm a reset.
///
/// ```swift
/// let driver = ScriptedDriver(mode: .hold)
/// let device = try await NetworkDevice.open(driver: driver)
/// …
/// await driver.release(queue: 0, at: 3)    // the fourth frame in flight, and no other
/// ```
///
/// Its methods may be called from anywhere; each hops to the queue's loop. Nothing is released, delivered or seen at a queue pair or a
/// position that there is not.
public final class ScriptedDriver: NetworkDriver {
  /// What the device does with a transmitted frame.
  public enum Mode: Sendable, Hashable {
    /// Keeps it until the test releases it.
    case hold
    /// Releases it in the next turn.
    case release
    /// Copies it into a receive buffer, as soon as there is one, and then releases it.
    case loopback
  }

  /// What the device does with a reset.
  public enum ResetBehaviour: Sendable, Hashable {
    /// Confirms it at once.
    case confirm
    /// Never confirms; the driver reports so without waiting out the time-out.
    case never
  }

  private let mode: Mode
  private let resetBehaviour: ResetBehaviour
  private let capacity: Int
  private let pairs: Int
  private let mtu: Int
  private let receiveBufferSize: Int
  private let parts = Mutex<[ScriptedQueue.Reference]>([])
  private let resets = Atomic<Int>(0)
  private let shutDowns = Atomic<Int>(0)

  /// A device.
  ///
  /// - Parameters:
  ///   - mode: what it does with transmitted frames.
  ///   - queuePairs: how many it has.
  ///   - capacity: frames that each transmit ring holds, one at least.
  ///   - mtu: largest layer-3 packet in bytes.
  ///   - receiveBufferSize: smallest buffer that it receives into, a whole frame by default; longer frames take several.
  ///   - reset: what it does with a reset.
  public init(
    mode: Mode, queuePairs: Int = 1, capacity: Int = 256, mtu: Int = 1500, receiveBufferSize: Int? = nil,
    reset: ResetBehaviour = .confirm
  ) {
    self.mode = mode
    pairs = queuePairs
    self.capacity = max(1, capacity)
    self.mtu = mtu
    self.receiveBufferSize = receiveBufferSize ?? mtu + 14
    resetBehaviour = reset
  }

  /// How often the device was reset.
  public var resetCount: Int { resets.load(ordering: .acquiring) }
  /// How often the driver was shut down.
  public var shutDownCount: Int { shutDowns.load(ordering: .acquiring) }

  // MARK: The driver

  /// Accepts any number of pairs up to its own.
  public func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    let wanted = request.queuePairs ?? pairs
    guard wanted >= 1, wanted <= pairs else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open", offered: "\(wanted) queue pairs", advice: "this device has \(pairs)")
    }
    return NetworkDeviceInformation(
      name: "scripted", hardwareAddress: MACAddress(2, 0, 0, 0, 0, 1), mtu: mtu, queuePairs: wanted,
      queueSize: capacity,
      headroom: 12, receiveBufferSize: receiveBufferSize)
  }

  /// Any pool will do: the device is this process.
  public func attach(pool: PacketPool) async throws(NetworkDeviceError) {}

  /// One scripted pair.
  public func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let queue = ScriptedQueue(
      mode: mode, capacity: capacity, maximumFrame: mtu + 14, slots: slots, signal: signal)
    parts.withLock { $0.append(ScriptedQueue.Reference(queue: queue, loop: loop, scope: LoopScope(loop))) }
    return queue
  }

  /// Nothing to start.
  public func activate() async throws(NetworkDeviceError) {}

  /// Confirms, or says that the device did not.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    resets.add(1, ordering: .acquiringAndReleasing)
    if resetBehaviour == .never {
      throw NetworkDeviceError(.resetNotConfirmed, "reset", offered: "no answer within \(timeout.inUnits)")
    }
  }

  /// Forgets its queues.
  public func shutDown() async {
    shutDowns.add(1, ordering: .acquiringAndReleasing)
    parts.withLock { $0 = [] }
  }

  // MARK: The script

  func on<Result: Sendable>(
    _ queue: Int, _ body: @Sendable (ScriptedQueue) -> Result
  ) async -> Result? {
    let parts = parts.withLock { $0 }
    guard parts.indices.contains(queue) else { return nil }
    let part = parts[queue]
    return await part.scope.run { _ in body(part.queue) }
  }

  /// The loop of a queue; nil when there is none of this number.
  func loop(of queue: Int) -> LoopExecutor? {
    parts.withLock { $0.indices.contains(queue) ? $0[queue].loop : nil }
  }

  /// Why there is no queue of this number.
  func noQueue(_ queue: Int, _ operation: String) -> NetworkDeviceError {
    let count = parts.withLock { $0.count }
    if count > 0 {
      return NetworkDeviceError(
        .invalidConfiguration, operation, offered: "queue \(queue)", advice: "this device has \(count), the first is 0")
    }
    let hasBeen = shutDownCount > 0
    return NetworkDeviceError(
      .closed, operation, offered: hasBeen ? "the device is closed" : "the device has not been opened")
  }

  /// Frames that the device of this pair holds.
  public func held(queue: Int = 0) async -> Int { await on(queue) { $0.held.count } ?? 0 }

  /// Releases one held frame, by its position in order of transmission; nothing else happens.
  public func release(queue: Int = 0, at position: Int) async {
    _ = await on(queue) { $0.release(at: position) }
  }

  /// Releases up to `count` held frames, oldest first.
  public func releaseFirst(_ count: Int, queue: Int = 0) async {
    _ = await on(queue) { part in for _ in 0..<max(0, min(count, part.held.count)) { part.release(at: 0) } }
  }

  /// Releases everything that is held, oldest first.
  public func releaseAll(queue: Int = 0) async {
    _ = await on(queue) { part in while !part.held.isEmpty { part.release(at: 0) } }
  }

  /// Delivers a frame, in as many buffers as it takes; false when there are not so many posted. The driver drops one that is
  /// longer than the device's frames may be.
  @discardableResult public func deliver(_ bytes: [UInt8], queue: Int = 0) async -> Bool {
    await on(queue) { $0.deliver(bytes) } ?? false
  }

  /// Delivers frames, in order, until one does not find the buffers that it takes.
  ///
  /// - Returns: how many were delivered.
  @discardableResult public func deliver(contentsOf frames: [[UInt8]], queue: Int = 0) async -> Int {
    await on(queue) { part in frames.firstIndex { !part.deliver($0) } ?? frames.count } ?? 0
  }

  /// Delivers the bytes of a packet, such as one that a builder of frames has made.
  @discardableResult public func deliver(_ packet: Packet, queue: Int = 0) async -> Bool {
    await deliver([UInt8](packet), queue: queue)
  }

  /// The bytes of a held frame as the device sees them now.
  public func heldBytes(queue: Int = 0, at position: Int) async -> [UInt8] {
    await on(queue) { $0.bytes(at: position) } ?? []
  }

  /// The device breaks the protocol.
  public func breakQueue(queue: Int = 0, _ error: NetworkDeviceError) async {
    _ = await on(queue) { $0.signal.fail(error) }
  }
}

/// The scripted pair: plain arrays, on the queue's loop.
final class ScriptedQueue: QueueDriver {
  /// Where the script finds it.
  struct Reference: @unchecked Sendable {
    // Proof of Sendable: `queue` is used inside `scope.run` only, which is the loop it belongs to.
    let queue: ScriptedQueue
    let loop: LoopExecutor
    let scope: LoopScope
  }

  let mode: ScriptedDriver.Mode
  let capacity: Int
  let maximumFrame: Int
  let slots: SlotTable
  let signal: QueueSignal
  var held: [FrameEntry] = []
  var released: [FrameEntry] = []
  var posted: [UInt32] = []
  var received: [FrameEntry] = []
  var counts = QueueDriverStatistics()
  var sent = SentRecord()

  init(mode: ScriptedDriver.Mode, capacity: Int, maximumFrame: Int, slots: SlotTable, signal: QueueSignal) {
    self.mode = mode
    self.capacity = capacity
    self.maximumFrame = maximumFrame
    self.slots = slots
    self.signal = signal
  }

  // MARK: The device

  func release(at position: Int) {
    guard held.indices.contains(position) else { return }
    released.append(held.remove(at: position))
    counts.interrupts += 1
    signal.interrupt()
  }

  func bytes(at position: Int) -> [UInt8] { held.indices.contains(position) ? bytes(of: held[position].slot) : [] }

  private func bytes(of first: UInt32) -> [UInt8] {
    var slot = first
    var bytes: [UInt8] = []
    for _ in 0..<slots.segments(of: slot) {
      unsafe bytes.append(
        contentsOf: UnsafeRawBufferPointer(start: slots.start(of: slot), count: slots.length(of: slot)))
      slot = slots.next(after: slot)
    }
    return bytes
  }

  private func frameLength(_ first: UInt32) -> Int {
    var (slot, length) = (first, slots.length(of: first))
    for _ in 1..<max(1, slots.segments(of: first)) {
      slot = slots.next(after: slot)
      length += slots.length(of: slot)
    }
    return length
  }

  func deliver(_ bytes: [UInt8]) -> Bool {
    let room = slots.slotSize - slots.headroom
    let buffers = max(1, (bytes.count + room - 1) / room)
    guard posted.count >= buffers else { return false }
    let taken = Array(posted.prefix(buffers))
    for (position, slot) in taken.enumerated() {
      let part = bytes[min(position * room, bytes.count)..<min((position + 1) * room, bytes.count)]
      unsafe part.withUnsafeBytes { source in
        guard let base = source.baseAddress else { return }
        unsafe slots.base(of: slot).advanced(by: slots.headroom).copyMemory(from: base, byteCount: source.count)
      }
      if position == 0 {
        slots.setReceived(slot: slot, length: part.count)
      } else {
        slots.append(slot: slot, offset: slots.headroom, length: part.count, to: taken[0], last: taken[position - 1])
      }
    }
    guard slots.admits(frameIn: taken[0], maximumLength: maximumFrame) else {
      // Its buffers are as empty as before.
      for slot in taken { slots.separate(slot: slot) }
      counts.receiveDropsLength += 1
      return true
    }
    posted.removeFirst(buffers)
    received.append(FrameEntry(receivedIn: taken[0], isInOneBuffer: buffers == 1 && bytes.count <= maximumFrame))
    counts.bytesReceived += UInt64(bytes.count)
    counts.interrupts += 1
    signal.interrupt()
    return true
  }

  // MARK: QueueDriver

  var transmitCapacity: Int { capacity }

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, capacity - held.count - released.count)
    for position in 0..<count {
      let length = frameLength(entries[position].slot)
      if !slots.admits(frameIn: entries[position].slot, maximumLength: maximumFrame) {
        guard position == 0 else { return position }
        throw .tooLong(length, maximumFrame, "submit")
      }
      held.append(entries[position])
      sent.add(bytes(of: entries[position].slot))
      counts.bytesSubmitted += UInt64(length)
    }
    return count
  }

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, released.count)
    for position in 0..<count { entries[position] = released[position] }
    released.removeFirst(count)
    return count
  }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, received.count)
    for position in 0..<count { entries[position] = received[position] }
    received.removeFirst(count)
    return count
  }

  var receiveRoom: Int { max(0, capacity - posted.count - received.count) }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    for position in 0..<slots.count { posted.append(slots[position]) }
    return slots.count
  }

  func ring() {
    guard !held.isEmpty, mode != .hold else { return }
    counts.kicks += 1
    var hasMoved = false
    while let entry = held.first {
      if mode == .loopback, !deliver(bytes(at: 0)) { break }
      held.removeFirst()
      released.append(entry)
      hasMoved = true
    }
    // A device that waits for receive buffers says nothing: the driver rings when it has posted some.
    if hasMoved { signal.interrupt() }
  }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    (received && !self.received.isEmpty) || (released != .never && !self.released.isEmpty)
  }

  func disarm() {}

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    for entry in held + released { transmitted(entry) }
    for slot in self.posted { posted(slot) }
    for entry in received { posted(entry.slot) }
    held = []
    released = []
    self.posted = []
    received = []
    sent.end()
  }

  var statistics: QueueDriverStatistics { counts }
}
