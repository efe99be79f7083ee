import Glibc
import LibeventConcurrency
import Netdev
import PacketFormats
import Synchronization

/// What a faulty driver does wrong. Each breaks the rule of one check; all else works.
enum Fault: String, Sendable, CaseIterable {
  case groupAddress, failsSecondReset
  case damagesLastByte, assumesHeadroom, sendsFirstBuffer, swapsReceived, losesBehind32, dropsWhenFull
  case truncatesTooLong, ignoresForeign, sendsSharedOnce, writesIntoShared, writesIntoReceived
  case releasesTwice, holdsLastRelease, neverArms, ignoresArm, saysArmed
  case publishesMore, forgetsFrame, drainsTwice, failsReset, keepsBuffer
  case writesAfterReset, leavesDescriptor
  case staysStarved, deafSecondPair, countsHeaders, forgetsCounts
}

/// The virtio driver with a fault between it and its queues.
final class FaultyDriver: NetworkDriver {
  private let inner: any NetworkDriver
  private let fault: Fault
  private let state = Mutex(State())

  private struct State {
    var resets = 0
    var pool: PacketPool?
  }

  init(_ inner: any NetworkDriver, _ fault: Fault) {
    self.inner = inner
    self.fault = fault
  }

  var recovery: RecoveryPauses? { inner.recovery }
  var peerStatistics: [PeerStatistics] {
    fault == .forgetsCounts ? inner.peerStatistics.map { _ in PeerStatistics() } : inner.peerStatistics
  }
  func attach(control: DeviceControl) { inner.attach(control: control) }
  func attend() async throws(NetworkDeviceError) { try await inner.attend() }
  func suspend() async { await inner.suspend() }
  func recover() async throws(NetworkDeviceError) { try await inner.recover() }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    var information = try await inner.start(request)
    if fault == .groupAddress { information.hardwareAddress = .broadcast }
    return information
  }

  func attach(pool: PacketPool) async throws(NetworkDeviceError) {
    state.withLock { $0.pool = pool }
    try await inner.attach(pool: pool)
  }

  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let queue = try inner.makeQueue(index: index, loop: loop, slots: slots, signal: signal)
    return FaultyQueue(queue, index: index, slots: slots, fault: fault)
  }

  func activate() async throws(NetworkDeviceError) { try await inner.activate() }

  func reset(timeout: Duration) async throws(NetworkDeviceError) {
    let count = state.withLock { state in
      state.resets += 1
      return state.resets
    }
    if fault == .failsReset || fault == .failsSecondReset && count > 1 {
      throw NetworkDeviceError(.resetNotConfirmed, "reset", offered: "reset \(count)")
    }
    try await inner.reset(timeout: timeout)
  }

  func shutDown() async {
    await inner.shutDown()
    switch fault {
    case .leavesDescriptor: leftOpen.withLock { $0.append(contentsOf: (0..<2).map { _ in dup(0) }) }
    case .writesAfterReset:
      // A device that goes on where it was.
      guard let pool = state.withLock({ $0.pool }) else { return }
      Task {
        for _ in 0..<100 {
          try await Task.sleep(for: .milliseconds(5))
          let size = pool.configuration.slotSize
          // Through the descriptor, as a device has it: memory that a sanitizer guards is not touched from here.
          var byte: UInt8 = 0x55
          for slot in 0..<pool.configuration.slots {
            _ = unsafe pwrite(pool.descriptor, &byte, 1, slot * size + size / 2)
          }
        }
      }
    default: break
    }
  }
}

/// Descriptors that the fault `leavesDescriptor` has left; the test closes them.
let leftOpen = Mutex<[CInt]>([])

/// One queue pair of it.
final class FaultyQueue: QueueDriver {
  private let inner: any QueueDriver
  private let index: Int
  private let slots: SlotTable
  private let fault: Fault
  /// Frames that the fault keeps from the device, and says are released.
  private var swallowed: [FrameEntry] = []
  /// A release that is kept back.
  private var heldBack: FrameEntry?
  private var hasTransmitted = false
  private var inFlight: [UInt32] = []
  private var known: Set<UInt32> = []
  private var earlier: [UInt32] = []
  private var posted = 0
  private var received = 0
  private var hasStarved = false
  /// A posted buffer that the fault keeps from the device, and the same while nothing is published in it.
  private var kept: UInt32?
  private var spare: UInt32?

  init(_ inner: any QueueDriver, index: Int, slots: SlotTable, fault: Fault) {
    self.inner = inner
    self.index = index
    self.slots = slots
    self.fault = fault
  }

  var transmitCapacity: Int { fault == .dropsWhenFull ? 2 * inner.transmitCapacity : inner.transmitCapacity }

  // MARK: Transmission

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    var frames: [FrameEntry] = []
    for position in 0..<entries.count { frames.append(entries[position]) }
    hasTransmitted = true
    switch fault {
    case .deafSecondPair where index == 1: return swallow(frames)
    case .losesBehind32 where frames.count > 32:
      let count = try publish(Array(frames.prefix(32)))
      return count < 32 ? count : count + swallow(Array(frames.dropFirst(32)))
    case .dropsWhenFull:
      let count = try inner.transmit(entries)
      return count + swallow(Array(frames.dropFirst(count)))
    case .ignoresForeign:
      if let first = frames.first, !known.contains(first.slot) { return swallow([first]) }
      return try publish(Array(frames.prefix(1)))
    case .sendsSharedOnce:
      for (position, frame) in frames.enumerated() {
        if inFlight.contains(frame.slot) {
          _ = swallow([frame])
        } else {
          guard try publish([frame]) == 1 else { return position }
          inFlight.append(frame.slot)
        }
      }
      return frames.count
    case .publishesMore:
      guard let denied = frames.last, let spare else { return try inner.transmit(entries) }
      let count = try publish(frames.dropLast())
      guard count == frames.count - 1 else { return count }
      try publishCopy(of: denied.slot, in: spare)
      return count
    case .truncatesTooLong, .assumesHeadroom, .sendsFirstBuffer, .writesIntoShared:
      for frame in frames { spoil(frame) }
      return try inner.transmit(entries)
    default: return try inner.transmit(entries)
    }
  }

  private func publish(_ frames: [FrameEntry]) throws(NetworkDeviceError) -> Int { try inner.transmit(frames.span) }

  /// Hands a frame to the device that the queue believes not to be published, in a buffer of the driver's own: the queue may
  /// free the frame's while the device reads.
  private func publishCopy(of slot: UInt32, in spare: UInt32) throws(NetworkDeviceError) {
    let length = slots.length(of: slot)
    slots.separate(slot: spare)
    slots.setReceived(slot: spare, length: length)
    unsafe slots.start(of: spare).copyMemory(from: slots.start(of: slot), byteCount: length)
    if try publish([FrameEntry(receivedIn: spare)]) == 1 { self.spare = nil }
  }

  private func swallow(_ frames: [FrameEntry]) -> Int {
    swallowed += frames
    return frames.count
  }

  private func spoil(_ frame: FrameEntry) {
    let slot = frame.slot
    let length = slots.length(of: slot)
    switch fault {
    case .truncatesTooLong where length > 1514: slots.setReceived(slot: slot, length: 1514)
    case .assumesHeadroom where slots.offset(of: slot) != slots.headroom:
      unsafe slots.start(of: slot)
        .copyMemory(from: slots.base(of: slot).advanced(by: slots.headroom), byteCount: length)
    case .sendsFirstBuffer where slots.segments(of: slot) > 1:
      slots.separate(slot: slot)
      slots.setReceived(slot: slot, length: length)
    case .writesIntoShared where !frame.isPlain:
      unsafe slots.start(of: slot).advanced(by: -12).initializeMemory(as: UInt8.self, repeating: 0xaa, count: 12)
    default: break
    }
  }

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    var count = 0
    while count < entries.count, let frame = swallowed.first {
      swallowed.removeFirst()
      entries[count] = frame
      count += 1
    }
    if count > 0 { return count }
    count = try inner.takeReleased(into: &entries)
    if let kept { count = takeBack(kept, from: &entries, count) }
    for position in 0..<count {
      if let index = inFlight.firstIndex(of: entries[position].slot) { inFlight.remove(at: index) }
    }
    switch fault {
    case .releasesTwice where count > 1:
      // One of them twice, another not at all.
      entries[count - 1] = entries[0]
      return count
    case .holdsLastRelease:
      if count > 0, heldBack == nil {
        heldBack = entries[count - 1]
        hasTransmitted = false
        return count - 1
      }
      guard hasTransmitted, count < entries.count, let last = heldBack.take() else { return count }
      entries[count] = last
      return count + 1
    default: return count
    }
  }

  /// The buffer of the driver's own is no frame of the queue's: it is ready for the next.
  private func takeBack(_ kept: UInt32, from entries: inout MutableSpan<FrameEntry>, _ count: Int) -> Int {
    var left = 0
    for position in 0..<count {
      if entries[position].slot == kept {
        spare = kept
      } else {
        entries[left] = entries[position]
        left += 1
      }
    }
    return left
  }

  // MARK: Reception

  var receiveRoom: Int { hasStarved ? 0 : inner.receiveRoom }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    if fault == .publishesMore, kept == nil, slots.count > 0 {
      (kept, spare) = (slots[0], slots[0])
      return try inner.post(slots.extracting(1...)) + 1
    }
    let count = try inner.post(slots)
    for position in 0..<count { known.insert(slots[position]) }
    posted += count
    return count
  }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    let count = try inner.takeReceived(into: &entries)
    posted -= count
    if fault == .staysStarved, count > 0, posted == 0 { hasStarved = true }
    if fault == .swapsReceived, count > 1 { (entries[0], entries[1]) = (entries[1], entries[0]) }
    for position in 0..<count {
      let slot = entries[position].slot
      let length = slots.length(of: slot)
      switch fault {
      case .damagesLastByte where length % 256 == 255:
        unsafe slots.start(of: slot).storeBytes(of: 0xff, toByteOffset: length - 1, as: UInt8.self)
      case .writesIntoReceived where earlier.count < 8: earlier.append(slot)
      default: break
      }
    }
    received += count
    // The device writes once more to buffers that it has returned.
    if fault == .writesIntoReceived, count > 0, received > 150 {
      for slot in earlier {
        unsafe slots.base(of: slot).storeBytes(of: 0x99, toByteOffset: slots.headroom + 20, as: UInt8.self)
      }
    }
    return count
  }

  // MARK: Notifications and the end

  func ring() { inner.ring() }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    switch fault {
    case .neverArms: return !swallowed.isEmpty
    case .ignoresArm:
      _ = inner.arm(received: received, released: released)
      return false
    case .saysArmed:
      _ = inner.arm(received: received, released: released)
      return true
    default: return inner.arm(received: received, released: released) || !swallowed.isEmpty
    }
  }

  func disarm() { inner.disarm() }

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    for frame in swallowed { transmitted(frame) }
    if let heldBack { transmitted(heldBack) }
    var (frames, buffers) = (0, 0)
    if let kept { posted(kept) }
    inner.drain(
      transmitted: { entry in
        if entry.slot == kept { return }
        frames += 1
        if fault == .forgetsFrame, frames == 1 { return }
        transmitted(entry)
        if fault == .drainsTwice { transmitted(entry) }
      },
      posted: { slot in
        buffers += 1
        if fault == .keepsBuffer, buffers == 1 { return }
        posted(slot)
      })
  }

  var statistics: QueueDriverStatistics {
    var counts = inner.statistics
    if fault == .countsHeaders { counts.bytesReceived += 12 }
    return counts
  }
}
