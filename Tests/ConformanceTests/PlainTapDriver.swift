import Glibc
import LibeventConcurrency
import Netdev
import PacketFormats
import Synchronization

/// A driver that is not virtio: a TAP interface through plain reads and writes of `/dev/net/tun`, one frame a system call.
///
/// Written with the public interface of `Netdev` only. The kernel copies a frame when it is written, so a buffer is released
/// as soon as the kernel has taken it; frames that it does not take wait here.
final class PlainTapDriver: NetworkDriver {
  private struct State {
    var descriptors: [CInt]
    var queues: [PlainTapQueue.Reference] = []
  }

  private let name: String
  private let mtu: Int
  private let state: Mutex<State>

  /// Opens the queues of a TAP interface in the calling thread's network namespace; makes it if there is none.
  init(interface name: String, queues: Int, mtu: Int = 1500) throws(NetworkDeviceError) {
    self.name = name
    self.mtu = mtu
    var descriptors: [CInt] = []
    do throws(NetworkDeviceError) {
      for _ in 0..<queues { descriptors.append(try Self.open(name, isOneOfSeveral: queues > 1)) }
    } catch {
      for descriptor in descriptors { close(descriptor) }
      throw error
    }
    state = Mutex(State(descriptors: descriptors))
  }

  private static func open(_ name: String, isOneOfSeveral: Bool) throws(NetworkDeviceError) -> CInt {
    let descriptor = unsafe Glibc.open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw NetworkDeviceError(.notPermitted, "open /dev/net/tun", offered: "error number \(errno)")
    }
    // struct ifreq: the name in 16 bytes, then the flags IFF_TAP, IFF_NO_PI and, of several queues, IFF_MULTI_QUEUE.
    var request = [UInt8](repeating: 0, count: 40)
    request.replaceSubrange(0..<min(15, name.utf8.count), with: name.utf8.prefix(15))
    request[16] = 0x02
    request[17] = isOneOfSeveral ? 0x11 : 0x10
    let setInterface: UInt = 0x4004_54ca  // TUNSETIFF
    let result = unsafe ioctl(descriptor, setInterface, &request)
    guard result == 0 else {
      let error = NetworkDeviceError(.system, "attach to \(name)", offered: "error number \(errno)")
      close(descriptor)
      throw error
    }
    return descriptor
  }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    let (offered, size) = (state.withLock { $0.descriptors.count }, request.queueSize ?? 256)
    let wanted = request.queuePairs ?? 1
    guard (1...max(1, offered)).contains(wanted), size >= 1 else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open \(name)", offered: "\(wanted) queue pairs of \(size) frames",
        advice: "it was made with \(offered)")
    }
    // What nobody serves must not get any frames.
    let unused = state.withLock { state in
      let unused = state.descriptors.dropFirst(wanted)
      state.descriptors.removeLast(unused.count)
      return unused
    }
    for descriptor in unused { close(descriptor) }
    // A byte more than a frame, which shows that one was too long.
    return NetworkDeviceInformation(
      name: "plain tap \(name)", hardwareAddress: MACAddress(2, 0, 0, 0, 0xcc, 1), mtu: mtu, queuePairs: wanted,
      queueSize: size,
      headroom: 0, receiveBufferSize: mtu + 23)
  }

  func attach(pool: PacketPool) async throws(NetworkDeviceError) {}

  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let queue = try PlainTapQueue(
      descriptor: state.withLock { $0.descriptors[index] }, capacity: 256, maximumFrame: mtu + 14, loop: loop,
      slots: slots, signal: signal)
    state.withLock { $0.queues.append(PlainTapQueue.Reference(queue: queue, scope: LoopScope(loop))) }
    return queue
  }

  func activate() async throws(NetworkDeviceError) {}

  /// Nothing but the queues touches a buffer, each on its loop: when they have stopped, the device has.
  func reset(timeout: Duration) async throws(NetworkDeviceError) {
    for reference in state.withLock({ $0.queues }) { await reference.scope.run { _ in reference.queue.stop() } }
  }

  func shutDown() async {
    let descriptors = state.withLock { state in
      defer { state = State(descriptors: []) }
      return state.descriptors
    }
    for descriptor in descriptors { close(descriptor) }
  }

  deinit { for descriptor in state.withLock({ $0.descriptors }) { close(descriptor) } }
}

/// One queue of the interface, on its loop.
final class PlainTapQueue: QueueDriver {
  struct Reference: @unchecked Sendable {
    // Proof of Sendable: `queue` is used inside `scope.run` only, which is the loop it belongs to.
    let queue: PlainTapQueue
    let scope: LoopScope
  }

  let transmitCapacity: Int
  private let descriptor: CInt
  private let maximumFrame: Int
  private let slots: SlotTable
  private let signal: QueueSignal
  /// Published frames that the kernel has not taken, and those that it has.
  private var waiting: [FrameEntry] = []
  private var released: [FrameEntry] = []
  /// Empty buffers.
  private var posted: [UInt32] = []
  private var readable: LoopSource?
  private var writable: LoopSource?
  private var isStopped = false
  private(set) var statistics = QueueDriverStatistics()

  init(
    descriptor: CInt, capacity: Int, maximumFrame: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) {
    transmitCapacity = capacity
    self.descriptor = descriptor
    self.maximumFrame = maximumFrame
    self.slots = slots
    self.signal = signal
    do throws(LoopError) {
      readable = try loop.makeSource(descriptor: descriptor, readiness: .readable) { [weak self] in self?.wake() }
      writable = try loop.makeSource(descriptor: descriptor, readiness: .writable) { [weak self] in self?.wake() }
    } catch {
      throw NetworkDeviceError(.system, "watching the TAP interface", offered: "\(error)")
    }
  }

  /// Something can be read or written. Sources are level-triggered: they are silent until the queue arms again.
  private func wake() {
    disarm()
    statistics.interrupts += 1
    signal.interrupt()
  }

  func stop() {
    isStopped = true
    readable?.cancel()
    writable?.cancel()
    readable = nil
    writable = nil
  }

  // MARK: Transmission

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let room = transmitCapacity - waiting.count - released.count
    for position in 0..<min(entries.count, room) {
      let length = frameLength(entries[position].slot)
      if !slots.admits(frameIn: entries[position].slot, maximumLength: maximumFrame) {
        // It alone fails, when it is the first.
        guard position == 0 else { return position }
        throw NetworkDeviceError(.frameTooLong, "submit", offered: "\(length) bytes", advice: "send less")
      }
      waiting.append(entries[position])
    }
    return min(entries.count, room)
  }

  private func frameLength(_ first: UInt32) -> Int {
    var (slot, length) = (first, slots.length(of: first))
    for _ in 1..<max(1, slots.segments(of: first)) {
      slot = slots.next(after: slot)
      length += slots.length(of: slot)
    }
    return length
  }

  /// The doorbell: the kernel takes what it has room for.
  func ring() {
    guard !waiting.isEmpty, !isStopped else { return }
    var taken = 0
    while taken < waiting.count, write(waiting[taken].slot) {
      released.append(waiting[taken])
      taken += 1
    }
    waiting.removeFirst(taken)
    statistics.kicks += 1
    if taken > 0 { signal.interrupt() }
  }

  /// False when the kernel has no room now. A frame that it does not want is gone, as on any wire.
  private func write(_ first: UInt32) -> Bool {
    var pieces = unsafe [iovec]()
    var slot = first
    for _ in 0..<slots.segments(of: first) {
      unsafe pieces.append(iovec(iov_base: slots.start(of: slot), iov_len: slots.length(of: slot)))
      slot = slots.next(after: slot)
    }
    let written = unsafe writev(descriptor, pieces, CInt(pieces.count))
    return written >= 0 || ![EAGAIN, ENOBUFS, EINTR].contains(errno)
  }

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = min(entries.count, released.count)
    for position in 0..<count { entries[position] = released[position] }
    released.removeFirst(count)
    return count
  }

  // MARK: Reception

  var receiveRoom: Int { isStopped ? 0 : transmitCapacity - posted.count }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    for position in 0..<slots.count { posted.append(slots[position]) }
    return slots.count
  }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    var count = 0
    while count < entries.count, let slot = posted.last, !isStopped {
      let start = unsafe slots.base(of: slot).advanced(by: slots.headroom)
      let length = unsafe read(descriptor, start, slots.slotSize - slots.headroom)
      guard length >= 0 else {
        guard errno == EAGAIN || errno == EINTR else {
          // What was taken is good; the next call finds the error again.
          if count > 0 { return count }
          throw NetworkDeviceError(.broken, "reading the TAP interface", offered: "error number \(errno)")
        }
        return count
      }
      slots.setReceived(slot: slot, length: length)
      guard slots.admits(frameIn: slot, maximumLength: maximumFrame) else {
        statistics.receiveDropsLength += 1
        continue
      }
      posted.removeLast()
      statistics.bytesReceived += UInt64(length)
      entries[count] = FrameEntry(receivedIn: slot, isInOneBuffer: length <= maximumFrame)
      count += 1
    }
    return count
  }

  // MARK: Notifications and the end

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    // A descriptor that is ready already makes its source fire at once: there is no need to look again.
    if received, !posted.isEmpty { readable?.resume() } else { readable?.suspend() }
    if waiting.isEmpty { writable?.suspend() } else { writable?.resume() }
    return released != .never && !self.released.isEmpty
  }

  func disarm() {
    readable?.suspend()
    writable?.suspend()
  }

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    for entry in waiting + released { transmitted(entry) }
    for slot in self.posted { posted(slot) }
    (waiting, released, self.posted) = ([], [], [])
  }
}
