internal import CNetdevSystem
internal import LibeventConcurrency
internal import Logging
internal import Netdev
internal import Virtio

/// One virtio-net queue pair: a receive ring and a transmit ring of one format, the net header in front of each frame.
///
/// Lives on its queue's loop. The rings sit behind one pointer, so that a burst works on them without exclusivity checks. The
/// queue sees it as `SplitQueuePair` or `PackedQueuePair`, where this is compiled for its format.
@safe final class VirtioQueuePair<Ring: DriverRing & ~Copyable>: PairControl {
  /// Both rings.
  struct Rings: ~Copyable {
    var receive: Ring
    var transmit: Ring
  }

  let rings: UnsafeMutablePointer<Rings>
  /// Room to put a chain together: the header and as many buffers as a ring has descriptors.
  let chain: UnsafeMutablePointer<RingBuffer>
  let chainCapacity: Int
  let slots: SlotTable
  let signal: QueueSignal
  let index: Int
  let agreed: VirtioNetDriver.Agreed
  private let transport: any VirtioTransport
  private let loop: LoopExecutor
  private let logger: Logger
  let features: FeatureSet
  let size: Int
  /// Longest frame without VLAN tags, both ways.
  let maximumFrame: Int
  let addressing: PoolAddressing
  /// Device address of a header of zeros, for frames whose own buffer must not be written: nobody ever writes here.
  @safe @exclusivity(unchecked) var zeroHeaderAddress: UInt64
  /// Keeps the rings' memory mapped.
  private var memory: SharedRings
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
    var memory: SharedRings
    var doorbells: Doorbells
  }

  init(_ parts: PairParts, _ logger: Logger) throws(NetworkDeviceError) {
    index = parts.index
    agreed = parts.agreed
    transport = parts.transport
    loop = parts.loop
    self.logger = logger
    memory = parts.memory.rings.piece(index, of: agreed.memoryMap.totalBytes)
    let made = try Self.makeRings(agreed, memory)
    unsafe rings = .allocate(capacity: 1)
    unsafe rings.initialize(to: made)
    chainCapacity = Int(agreed.layout.size) + 1
    unsafe chain = .allocate(capacity: chainCapacity)
    unsafe chain.initialize(repeating: RingBuffer(address: 0, length: 0), count: chainCapacity)
    slots = parts.slots
    signal = parts.signal
    addressing = PoolAddressing(base: parts.memory.poolAddress, slots: slots)
    features = agreed.features
    size = Int(agreed.layout.size)
    maximumFrame = agreed.mtu + 14
    zeroHeaderAddress = memory.address &+ UInt64(agreed.memoryMap.headerOffset)
    #if Testing
    tellLaid(memory)
    #endif
    doorbells = try attach(memory)
    try watchService()
  }

  deinit {
    #if Testing
    tellGone()
    #endif
    unsafe rings.deinitialize(count: 1)
    unsafe rings.deallocate()
    unsafe chain.deallocate()
  }

  private static func makeRings(
    _ agreed: VirtioNetDriver.Agreed, _ memory: SharedRings
  ) throws(NetworkDeviceError) -> Rings {
    let map = agreed.memoryMap
    let base = unsafe memory.pointer
    let size = Int(map.layout.size)
    let (eventIndex, inOrder) = (agreed.features.contains(.eventIndex), agreed.features.contains(.inOrder))
    do throws(RingError) {
      var receive = try unsafe Ring.Configuration(size: size, block: base)
      receive.eventIndex = eventIndex
      receive.inOrder = inOrder
      var transmit = try unsafe Ring.Configuration(size: size, block: base.advanced(by: map.ringStride))
      transmit.eventIndex = eventIndex
      transmit.inOrder = inOrder
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
  private func attach(_ memory: SharedRings) throws(NetworkDeviceError) -> Doorbells {
    let receive = try attachQueue(2 * index, at: memory.address)
    do throws(NetworkDeviceError) {
      let transmit = try attachQueue(2 * index + 1, at: memory.address &+ UInt64(agreed.memoryMap.ringStride))
      return Doorbells(receive: receive, transmit: transmit)
    } catch {
      receive.disconnect()
      throw error
    }
  }

  private func attachQueue(_ queue: Int, at address: UInt64) throws(NetworkDeviceError) -> any VirtioDoorbell {
    try transport.attachQueue(
      VirtioQueuePlacement(index: queue, agreed.layout, at: address, features: features), loop: loop,
      onInterrupt: { [weak self] in self?.interrupted() },
      onFailure: { [weak self] error in self?.signal.fail(error) })
  }

  /// The loop polls from here on, and arms before it sleeps. An event index asks once, but the flag of a ring without one
  /// asks for an interrupt for every chain until it is set (VIRTIO 1.4 §2.7.7).
  private func interrupted() {
    counts.interrupts &+= 1
    if !features.contains(.eventIndex) { disarm() }
    signal.interrupt()
  }

  private func endService() {
    service?.end()
    service = nil
  }

  /// The first pair is there by definition; a device may take its time to begin with it.
  private func watchService() throws(NetworkDeviceError) {
    guard index > 0, let limit = transport.serviceTimeout else { return }
    service = try ServiceWatch(loop: loop, limit: limit) { [weak self] in self?.checkService() }
  }

  /// The reset has begun.
  func goQuiet() {
    #if Testing
    tellGone()
    #endif
    isLive = false
    isQuiet = true
  }

  /// The device takes its turns on this loop.
  var isServedHere: Bool { doorbells?.areOnLoop ?? false }

  /// DRIVER_OK is set: the first notifications are unconditional. Unless a reset was quicker: a queue may break at once.
  func goLive() {
    #if Testing
    if unsafe netdev_fault_is_planted("start-crosses-reset") { isQuiet = false }
    #endif
    guard !isQuiet, !isSuspended else { return }
    isLive = true
    doorbells?.kickReceive()
    doorbells?.kickTransmit()
    counts.kicks &+= 2
    #if Testing
    RingWatch.tell(.kick(unsafe rings.pointee.receive.identity, rang: true))
    RingWatch.tell(.kick(unsafe rings.pointee.transmit.identity, rang: true))
    #endif
  }

  /// The device is lost: nothing is published, posted or rung until it is back.
  func suspend() {
    #if Testing
    tellGone()
    #endif
    isSuspended = true
    isLive = false
    disconnect()
    endService()
    // One more turn, for what the device had given back before.
    signal.interrupt()
  }

  /// Makes rings for the device that comes back and tells the transport of them. Nothing is in them until `resume`.
  func layAnew(_ rings: SharedRings) throws(NetworkDeviceError) {
    disconnectNext()
    let memory = rings.piece(index, of: agreed.memoryMap.totalBytes)
    let made = try Self.makeRings(agreed, memory)
    next = Next(rings: made, memory: memory, doorbells: try attach(memory))
  }

  /// The device uses the new rings: what was in the old ones moves over. Says how many buffers are in quarantine since.
  func resume(_ terms: ResumeTerms) -> Int {
    guard isSuspended, !isQuiet, let next = next.take() else { return 0 }
    let left = emptyRings()
    unsafe rings.pointee = next.rings
    memory = next.memory
    #if Testing
    tellLaid(memory)
    #endif
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

  private func disconnect() {
    doorbells?.disconnect()
    doorbells = nil
  }

  /// What an attempt to come back has made that came to nothing.
  private func disconnectNext() {
    guard let old = next.take() else { return }
    old.doorbells.disconnect()
  }
}

// MARK: - Notifications and the end

extension VirtioQueuePair where Ring: ~Copyable {
  // `Models/Sources/Virtio/RingModels.swift` has a copy of the order in which a queue takes back, submits, rings and arms.

  func ring() {
    // Before DRIVER_OK no notification is sent (VIRTIO 1.4 §3.1.1), after the reset began none either.
    guard isLive else { return }
    if unsafe rings.pointee.transmit.hasUnannounced {
      if unsafe rings.pointee.transmit.needsKick() {
        counts.kicks &+= 1
        #if Testing
        if unsafe netdev_fault_is_planted("forgotten-doorbell") { return }
        #endif
        doorbells?.kickTransmit()
        service?.begin()
        #if Testing
        RingWatch.tell(.kick(unsafe rings.pointee.transmit.identity, rang: true))
        #endif
      } else {
        counts.kicksSuppressed &+= 1
        #if Testing
        RingWatch.tell(.kick(unsafe rings.pointee.transmit.identity, rang: false))
        #endif
      }
    }
    if unsafe rings.pointee.receive.hasUnannounced {
      if unsafe rings.pointee.receive.needsKick() {
        counts.kicks &+= 1
        doorbells?.kickReceive()
        #if Testing
        RingWatch.tell(.kick(unsafe rings.pointee.receive.identity, rang: true))
        #endif
      } else {
        counts.kicksSuppressed &+= 1
        #if Testing
        RingWatch.tell(.kick(unsafe rings.pointee.receive.identity, rang: false))
        #endif
      }
    }
  }

  /// The first frames have had their time.
  private func checkService() {
    endService()
    guard unsafe rings.pointee.transmit.returnedIndex == 0, unsafe rings.pointee.transmit.inFlight > 0,
      unsafe !rings.pointee.transmit.hasUsed
    else { return }
    signal.fail(
      NetworkDeviceError(
        .unsupported, transport.name,
        offered: "queue pair \(index) is not served: nothing that was sent through it came back",
        advice: "ask for fewer queue pairs, or give the switch's port more"))
  }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    var pending = backlogWaits(received: received, released: released)
    // What comes from a lost device is taken when the pair resumes.
    if isSuspended { return pending }
    if received {
      if unsafe rings.pointee.receive.armInterrupt() { pending = true }
      #if Testing
      if unsafe netdev_fault_is_planted("lost-receive-recheck") {
        pending = backlogWaits(received: received, released: released)
      }
      #endif
    } else {
      unsafe rings.pointee.receive.disarmInterrupt()
    }
    #if Testing
    let pendingBefore = pending
    #endif
    switch released {
    case .never: unsafe rings.pointee.transmit.disarmInterrupt()
    case .next:
      #if Testing
      if unsafe netdev_fault_is_planted("missing-rearm") { break }
      #endif
      if unsafe rings.pointee.transmit.armInterrupt() { pending = true }
    case .most: if unsafe rings.pointee.transmit.armInterruptDelayed() { pending = true }
    }
    #if Testing
    if unsafe netdev_fault_is_planted("lost-transmit-recheck") { return pendingBefore }
    #endif
    return pending
  }

  /// What a lost device gave back is there for whoever wants it.
  private func backlogWaits(received: Bool, released: ReleaseInterrupt) -> Bool {
    guard let backlog else { return false }
    return (received && !backlog.received.isEmpty) || (released != .never && !backlog.released.isEmpty)
  }

  func disarm() {
    unsafe rings.pointee.receive.disarmInterrupt()
    unsafe rings.pointee.transmit.disarmInterrupt()
  }

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    isLive = false
    disconnect()
    endService()
    disconnectNext()
    unsafe rings.pointee.transmit.drain { transmitted(FrameEntry(rawValue: $0)) }
    unsafe rings.pointee.receive.drain { posted(UInt32(truncatingIfNeeded: $0)) }
    for slot in limbo { posted(slot) }
    limbo = []
    if let backlog { for entry in backlog.released { transmitted(entry) } }
    if let backlog { for entry in backlog.received { posted(entry.slot) } }
    backlog = nil
  }

  var statistics: QueueDriverStatistics { counts }

  /// A frame was dropped for its length. Logged once: the counter has the rest.
  func noteTooLong(_ length: Int) {
    counts.receiveDropsLength &+= 1
    guard counts.receiveDropsLength == 1 else { return }
    logger.warning(
      "a received frame was dropped: it is longer than this device's frames may be; others like it are counted only",
      metadata: ["device": "\(transport.name)", "queue": "\(index)", "length": "\(length)", "limit": "\(maximumFrame)"])
  }
}
