internal import LibeventConcurrency
internal import Netdev
internal import Virtio

/// One virtio-net queue pair: a receive ring and a transmit ring, the net header in front of each frame.
///
/// Lives on its queue's loop. The rings sit behind one pointer, so that a burst works on them without exclusivity checks.
@safe final class VirtioQueuePair: QueueDriver {
  /// Where the driver finds it.
  struct Reference: @unchecked Sendable {
    // Proof of Sendable: `pair` is used inside `scope.run` only, which is the loop it belongs to.
    let pair: VirtioQueuePair
    let scope: LoopScope

    func goLive() async { await scope.run { _ in pair.goLive() } }
    func goQuiet() async { await scope.run { _ in pair.goQuiet() } }
    func fail(_ error: NetworkDeviceError) async { await scope.run { _ in pair.signal.fail(error) } }

    func suspend() async { await scope.run { _ in pair.suspend() } }
    func layAnew(_ rings: SharedRingMemory) async throws(NetworkDeviceError) {
      try await scope.run { _ throws(NetworkDeviceError) in try pair.layAnew(rings) }
    }
    func resume(_ terms: ResumeTerms) async -> Int { await scope.run { _ in pair.resume(terms) } }
    func endQuarantine(_ generation: Int) async { await scope.run { _ in pair.endQuarantine(generation) } }
  }

  /// The transport's doorbells. They cannot be copied, so that ringing borrows them and retains nothing.
  struct Doorbells: ~Copyable {
    let bells: any VirtioDoorbells
    borrowing func kickReceive() { bells.kickReceive() }
    borrowing func kickTransmit() { bells.kickTransmit() }
  }

  /// Both rings.
  struct Rings: ~Copyable {
    var receive: SplitDriverRing
    var transmit: SplitDriverRing
  }

  let rings: UnsafeMutablePointer<Rings>
  /// Room to put a chain together: the header and as many buffers as a ring has descriptors.
  private let chain: UnsafeMutablePointer<RingBuffer>
  private let chainCapacity: Int
  let slots: SlotTable
  let signal: QueueSignal
  private let index: Int
  private let agreed: VirtioNetDriver.Agreed
  private let transport: any VirtioTransport
  private let loop: LoopExecutor
  let features: FeatureSet
  let size: Int
  let maximumFrame: Int
  let addressing: PoolAddressing
  /// Device address of a header of zeros, for frames whose own buffer must not be written: nobody ever writes here.
  @safe @exclusivity(unchecked) private var zeroHeaderAddress: UInt64
  /// Keeps the rings' memory mapped.
  private var memory: SharedRingMemory
  @safe @exclusivity(unchecked) private var doorbells: Doorbells?
  @safe @exclusivity(unchecked) private var isLive = false
  @safe @exclusivity(unchecked) private var isQuiet = false
  @safe @exclusivity(unchecked) var counts = QueueDriverStatistics()
  /// Runs while it is not known whether the device serves this pair at all; nil when it is.
  @safe @exclusivity(unchecked) private var service: ServiceWatch?
  /// First slots of received frames that could not be handed on because the queue broke.
  @safe @exclusivity(unchecked) var limbo: [UInt32] = []
  /// The device is lost: nothing is published until the pair resumes.
  @safe @exclusivity(unchecked) var isSuspended = false
  /// What `takeReleased` and `takeReceived` return before they look at the rings; nil nearly always.
  @safe @exclusivity(unchecked) var backlog: Backlog?
  /// Rings for the device that comes back, until the pair resumes.
  private var next: Next?
  /// Posted buffers that a lost device could still write to, by the loss.
  var quarantine: [Int: [UInt32]] = [:]

  /// New rings, which the device knows and nobody has used.
  private struct Next: ~Copyable {
    var rings: Rings
    var memory: SharedRingMemory
    var doorbells: Doorbells
  }

  init(
    index: Int, agreed: VirtioNetDriver.Agreed, memory: VirtioNetDriver.Memory, slots: SlotTable, signal: QueueSignal,
    transport: any VirtioTransport, loop: LoopExecutor
  ) throws(NetworkDeviceError) {
    self.index = index
    self.agreed = agreed
    self.transport = transport
    self.loop = loop
    self.memory = memory.rings.piece(index, of: agreed.memoryMap.totalBytes)
    let made = try Self.makeRings(agreed, self.memory)
    unsafe rings = .allocate(capacity: 1)
    unsafe rings.initialize(to: made)
    chainCapacity = Int(agreed.layout.size) + 1
    unsafe chain = .allocate(capacity: chainCapacity)
    unsafe chain.initialize(repeating: RingBuffer(address: 0, length: 0), count: chainCapacity)
    self.slots = slots
    self.signal = signal
    addressing = PoolAddressing(base: memory.poolAddress, slots: slots)
    features = agreed.features
    size = Int(agreed.layout.size)
    maximumFrame = agreed.mtu + 14
    zeroHeaderAddress = self.memory.address &+ UInt64(agreed.memoryMap.headerOffset)
    doorbells = try attach(self.memory)
    try watchService()
  }

  deinit {
    unsafe rings.deinitialize(count: 1)
    unsafe rings.deallocate()
    unsafe chain.deallocate()
  }

  private static func makeRings(
    _ agreed: VirtioNetDriver.Agreed, _ memory: SharedRingMemory
  ) throws(NetworkDeviceError) -> Rings {
    let map = agreed.memoryMap
    let base = unsafe memory.pointer
    let size = Int(map.layout.size)
    let eventIndex = agreed.features.contains(.eventIndex)
    do throws(RingError) {
      var receive = try unsafe SplitDriverRing.Configuration(size: size, block: base)
      receive.eventIndex = eventIndex
      var transmit = try unsafe SplitDriverRing.Configuration(
        size: size, block: base.advanced(by: map.ringStride))
      transmit.eventIndex = eventIndex
      if map.indirectCapacity >= 2 {
        transmit.indirect = unsafe IndirectTables(
          host: base.advanced(by: map.indirectOffset), address: memory.address &+ UInt64(map.indirectOffset),
          capacity: map.indirectCapacity)
      }
      return Rings(receive: try receive.activate(), transmit: try transmit.activate())
    } catch {
      throw NetworkDeviceError(.invalidConfiguration, "makeQueue", offered: "\(error)")
    }
  }

  /// Tells the transport of rings in this memory.
  private func attach(_ memory: SharedRingMemory) throws(NetworkDeviceError) -> Doorbells {
    let map = agreed.memoryMap
    let placement = VirtioPairPlacement(
      index: index, receive: .init(map.layout, at: memory.address),
      transmit: .init(map.layout, at: memory.address &+ UInt64(map.ringStride)), features: features)
    let doorbells = try transport.attachPair(
      placement, loop: loop,
      onInterrupt: { [weak self] in self?.interrupted() },
      onFailure: { [weak self] error in self?.signal.fail(error) })
    return Doorbells(bells: doorbells)
  }

  /// The loop polls from here on, and arms before it sleeps. An event index asks once, but the flag of a ring without one
  /// asks for an interrupt for every chain until it is set (VIRTIO 1.4 §2.7.7).
  private func interrupted() {
    counts.interrupts &+= 1
    if !features.contains(.eventIndex) { disarm() }
    signal.interrupt()
  }

  /// The first pair is there by definition; a device may take its time to begin with it.
  private func watchService() throws(NetworkDeviceError) {
    guard index > 0, let limit = transport.serviceTimeout else { return }
    service = try ServiceWatch(loop: loop, limit: limit) { [weak self] in self?.checkService() }
  }

  /// The reset has begun.
  private func goQuiet() {
    isLive = false
    isQuiet = true
  }

  /// DRIVER_OK is set: the first notifications are unconditional. Unless a reset was quicker: a queue may break at once.
  private func goLive() {
    guard !isQuiet, !isSuspended else { return }
    isLive = true
    doorbells?.kickReceive()
    doorbells?.kickTransmit()
    counts.kicks &+= 2
  }

  /// The device is lost: nothing is published, posted or rung until it is back.
  private func suspend() {
    isSuspended = true
    isLive = false
    doorbells = nil
    service = nil
    // One more turn, for what the device had given back before.
    signal.interrupt()
  }

  /// Makes rings for the device that comes back and tells the transport of them. Nothing is in them until `resume`.
  private func layAnew(_ rings: SharedRingMemory) throws(NetworkDeviceError) {
    next = nil
    let memory = rings.piece(index, of: agreed.memoryMap.totalBytes)
    let made = try Self.makeRings(agreed, memory)
    next = Next(rings: made, memory: memory, doorbells: try attach(memory))
  }

  /// The device uses the new rings: what was in the old ones moves over. Says how many buffers are in quarantine since.
  private func resume(_ terms: ResumeTerms) -> Int {
    guard isSuspended, !isQuiet, let next = next.take() else { return 0 }
    let left = emptyRings()
    unsafe rings.pointee = next.rings
    memory = next.memory
    zeroHeaderAddress = memory.address &+ UInt64(agreed.memoryMap.headerOffset)
    doorbells = consume next.doorbells
    isSuspended = false
    refillRings(left, terms)
    counts.recoveries &+= 1
    try? watchService()
    goLive()
    signal.interrupt()
    return terms.isGone ? 0 : left.posted.count
  }
}

// MARK: - Transmission

extension VirtioQueuePair {
  var transmitCapacity: Int { size }

  func transmit(_ entries: Span<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    if isSuspended { return 0 }
    var done = 0
    while true {
      done &+= addPlain(entries, from: done)
      // Nothing left; or no room, which holds for a chain too; or a frame that is not plain.
      guard done < entries.count else { break }
      do throws(NetworkDeviceError) {
        guard try addChain(entries[done]) else { break }
      } catch {
        // What went before it is in the ring and counts; the next call begins with this frame.
        guard done > 0 else { throw error }
        break
      }
      done &+= 1
    }
    unsafe rings.pointee.transmit.publish()
    return done
  }

  /// Frames in one buffer each, up to the first that is not so: the header in their headroom, one descriptor. The number
  /// that was added.
  @inline(__always)
  private func addPlain(_ entries: Span<TransmitEntry>, from start: Int) -> Int {
    let slots = slots
    let addressing = addressing
    var bytes: UInt64 = 0
    let count = unsafe rings.pointee.transmit.add(count: entries.count &- start, writable: false) { position in
      // Below the count.
      let entry = unsafe entries[unchecked: start &+ position]
      guard entry.isPlain else { return nil }
      let slot = entry.slot
      // In the headroom before the frame, which nobody else holds.
      let start = unsafe slots.start(of: slot)
      unsafe VirtioNetHeader().store(to: start - VirtioNetHeader.size)
      let length = UInt32(truncatingIfNeeded: slots.length(of: slot) &+ VirtioNetHeader.size)
      bytes &+= UInt64(length)
      return unsafe RingBuffer(address: addressing.headerAddress(before: start), length: length, token: entry.rawValue)
    }
    counts.bytesSubmitted &+= bytes &- UInt64(count &* VirtioNetHeader.size)
    return count
  }

  /// A frame in several buffers, or one whose buffer somebody else holds: the header of zeros, then the frame.
  @inline(never)
  private func addChain(_ entry: TransmitEntry) throws(NetworkDeviceError) -> Bool {
    let segments = slots.segments(of: entry.slot)
    guard segments < chainCapacity else { throw frameTooLong("a frame in \(segments) buffers") }
    unsafe chain[0] = RingBuffer(address: zeroHeaderAddress, length: UInt32(VirtioNetHeader.size))
    var slot = entry.slot
    var length = 0
    for position in 1...segments {
      length += slots.length(of: slot)
      unsafe chain[position] = RingBuffer(
        address: addressing.address(of: slots.start(of: slot)),
        length: UInt32(truncatingIfNeeded: slots.length(of: slot)))
      slot = slots.next(after: slot)
    }
    // Received frames may be longer than what may be sent (VIRTIO 1.4 §5.1.4.2); they are never plain.
    guard length <= maximumFrame else { throw frameTooLong("\(length) bytes; this device takes up to \(maximumFrame)") }
    do {
      // Below the capacity.
      let buffers = unsafe Span(_unsafeStart: chain, count: segments + 1)
      guard try unsafe rings.pointee.transmit.add(readable: buffers, writable: Span(), token: entry.rawValue) else {
        return false
      }
      counts.bytesSubmitted &+= UInt64(length)
      return true
    } catch {
      throw frameTooLong("\(error)")
    }
  }

  private func frameTooLong(_ how: String) -> NetworkDeviceError {
    NetworkDeviceError(.frameTooLong, "submit", offered: how, advice: "use larger buffers or a larger queue")
  }

  func takeReleased(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    if isSuspended || backlog != nil { return try takeReleasedOfLost(into: &entries) }
    return try reapReleased(into: &entries)
  }

  /// Takes back what the transmit ring says is released.
  @inline(__always)
  func reapReleased(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let room = entries.count
    var count = 0
    do throws(RingError) {
      while count < room {
        let start = count
        count &+= try unsafe entries.withUnsafeMutableBufferPointer { entries throws(RingError) in
          guard let place = unsafe entries.baseAddress?.advanced(by: start) else { return 0 }
          return try unsafe rings.pointee.transmit.reapSingles(max: room &- start) { position, token, _ in
            // Below the room.
            unsafe place[position] = TransmitEntry(rawValue: token)
            return true
          }
        }
        guard count < room, unsafe rings.pointee.transmit.hasOthers,
          let used = try unsafe rings.pointee.transmit.nextUsed()
        else { break }
        unsafe entries[unchecked: count] = TransmitEntry(rawValue: used.token)
        count &+= 1
      }
    } catch {
      // What came before the violation is good; the ring, once broken, throws again at the next call.
      if count == 0 { throw broken("the transmit ring", "\(error)") }
    }
    return count
  }

  @inline(never)
  func broken(_ what: String, _ how: String) -> NetworkDeviceError {
    NetworkDeviceError(.broken, what, offered: how, advice: "the device breaks the virtio protocol; it is reset")
  }
}

// MARK: - Notifications and the end

extension VirtioQueuePair {
  func ring() {
    // Before DRIVER_OK no notification is sent (VIRTIO 1.4 §3.1.1), after the reset began none either.
    guard isLive else { return }
    if unsafe rings.pointee.transmit.hasUnannounced {
      if unsafe rings.pointee.transmit.needsKick() {
        counts.kicks &+= 1
        doorbells?.kickTransmit()
        service?.begin()
      } else {
        counts.kicksSuppressed &+= 1
      }
    }
    if unsafe rings.pointee.receive.hasUnannounced {
      if unsafe rings.pointee.receive.needsKick() {
        counts.kicks &+= 1
        doorbells?.kickReceive()
      } else {
        counts.kicksSuppressed &+= 1
      }
    }
  }

  /// The first frames have had their time.
  private func checkService() {
    service = nil
    guard unsafe rings.pointee.transmit.returnedIndex == 0, unsafe rings.pointee.transmit.inFlight > 0,
      (try? unsafe rings.pointee.transmit.pendingUsed()) == 0
    else { return }
    signal.fail(
      NetworkDeviceError(
        .unsupported, transport.name,
        offered: "queue pair \(index) is not served: nothing that was sent through it came back",
        advice: "ask for fewer queue pairs, or give the switch's port more"))
  }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    // What comes from a lost device is taken when the pair resumes.
    if isSuspended { return backlog != nil }
    var pending = false
    if received {
      pending = unsafe rings.pointee.receive.armInterrupt()
    } else {
      unsafe rings.pointee.receive.disarmInterrupt()
    }
    switch released {
    case .never: unsafe rings.pointee.transmit.disarmInterrupt()
    case .next: if unsafe rings.pointee.transmit.armInterrupt() { pending = true }
    case .most: if unsafe rings.pointee.transmit.armInterruptDelayed() { pending = true }
    }
    return pending
  }

  func disarm() {
    unsafe rings.pointee.receive.disarmInterrupt()
    unsafe rings.pointee.transmit.disarmInterrupt()
  }

  func drain(transmitted: (TransmitEntry) -> Void, posted: (UInt32) -> Void) {
    isLive = false
    doorbells = nil
    service = nil
    next = nil
    unsafe rings.pointee.transmit.drain { transmitted(TransmitEntry(rawValue: $0)) }
    unsafe rings.pointee.receive.drain { posted(UInt32(truncatingIfNeeded: $0)) }
    for slot in limbo { posted(slot) }
    limbo = []
    if let backlog { for entry in backlog.released { transmitted(entry) } }
    if let backlog { for entry in backlog.received { posted(entry.slot) } }
    backlog = nil
  }

  var statistics: QueueDriverStatistics { counts }
}
