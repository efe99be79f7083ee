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
  }

  /// The rings, and room to take used buffers.
  struct Rings: ~Copyable {
    var receive: SplitDriverRing
    var transmit: SplitDriverRing
  }

  private let rings: UnsafeMutablePointer<Rings>
  private let used: UnsafeMutablePointer<UsedBuffer>
  private static let usedCapacity = 64
  /// In `used`, a buffer that went back to the ring.
  private static let reposted = UInt64.max
  private let slots: SlotTable
  private let signal: QueueSignal
  private let features: FeatureSet
  private let size: Int
  private let maximumFrame: Int
  private let addressing: PoolAddressing
  /// Device address of a header of zeros, for frames whose own buffer must not be written: nobody ever writes here.
  private let zeroHeaderAddress: UInt64
  @safe @exclusivity(unchecked) private var doorbells: (any VirtioDoorbells)?
  @safe @exclusivity(unchecked) private var isLive = false
  @safe @exclusivity(unchecked) private var isQuiet = false
  @safe @exclusivity(unchecked) private var counts = QueueDriverStatistics()
  /// Slots of used buffers that could not be handed on because the queue broke; and those of the frame at hand.
  @safe @exclusivity(unchecked) private var limbo: [UInt32] = []
  @safe @exclusivity(unchecked) private var limboOfFrame: [UInt32] = []

  init(
    index: Int, agreed: VirtioNetDriver.Agreed, poolAddress: UInt64, slots: SlotTable, signal: QueueSignal,
    transport: any VirtioTransport, loop: LoopExecutor
  ) throws(NetworkDeviceError) {
    let layout = agreed.layout
    let map = PairMemoryMap(layout: layout, indirect: agreed.features.contains(.indirectDesc))
    let memory = try transport.makeRingMemory(bytes: map.totalBytes)
    do throws(RingError) {
      let made = try Self.makeRings(map, memory, eventIndex: agreed.features.contains(.eventIndex))
      unsafe rings = .allocate(capacity: 1)
      unsafe rings.initialize(to: made)
    } catch {
      throw NetworkDeviceError(.invalidConfiguration, "makeQueue", offered: "\(error)")
    }
    unsafe used = .allocate(capacity: Self.usedCapacity)
    unsafe used.initialize(repeating: UsedBuffer(token: 0, written: 0), count: Self.usedCapacity)
    self.slots = slots
    self.signal = signal
    addressing = PoolAddressing(base: poolAddress, slots: slots)
    features = agreed.features
    size = Int(layout.size)
    maximumFrame = agreed.mtu + 14
    zeroHeaderAddress = memory.address &+ UInt64(map.headerOffset)
    let placement = VirtioPairPlacement(
      index: index, receive: .init(layout, at: memory.address),
      transmit: .init(layout, at: memory.address &+ UInt64(map.ringStride)), features: agreed.features)
    doorbells = try transport.attachPair(
      placement, loop: loop,
      onInterrupt: { [weak self] in
        self?.counts.interrupts &+= 1
        self?.signal.interrupt()
      },
      onFailure: { [weak self] error in self?.signal.fail(error) })
  }

  deinit {
    unsafe rings.deinitialize(count: 1)
    unsafe rings.deallocate()
    unsafe used.deallocate()
  }

  private static func makeRings(
    _ map: PairMemoryMap, _ memory: SharedRingMemory, eventIndex: Bool
  ) throws(RingError) -> Rings {
    let base = unsafe memory.pointer
    let size = Int(map.layout.size)
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
  }

  /// The reset has begun.
  private func goQuiet() {
    isLive = false
    isQuiet = true
  }

  /// DRIVER_OK is set: the first notifications are unconditional. Unless a reset was quicker: a queue may break at once.
  private func goLive() {
    guard !isQuiet else { return }
    isLive = true
    doorbells?.kickReceive()
    doorbells?.kickTransmit()
    counts.kicks &+= 2
  }
}

/// Where buffers of the pool lie in the device's address space.
private struct PoolAddressing {
  let base: UInt64
  let slotSize: UInt64
  let emptyOffset: UInt64
  let emptyLength: UInt32

  init(base: UInt64, slots: SlotTable) {
    self.base = base
    slotSize = UInt64(slots.slotSize)
    // The header goes before the place where the frame shall begin.
    emptyOffset = UInt64(slots.headroom - VirtioNetHeader.size)
    emptyLength = UInt32(slots.slotSize - slots.headroom + VirtioNetHeader.size)
  }

  @inline(__always) func address(of slot: UInt32, offset: Int) -> UInt64 {
    base &+ UInt64(slot) &* slotSize &+ UInt64(truncatingIfNeeded: offset)
  }

  /// A buffer to receive into.
  @inline(__always) func emptyBuffer(_ slot: UInt32) -> RingBuffer {
    RingBuffer(address: base &+ UInt64(slot) &* slotSize &+ emptyOffset, length: emptyLength, token: UInt64(slot))
  }
}

/// Where a pair's parts lie in the memory that its transport gives: both rings, indirect tables, the header of zeros.
private struct PairMemoryMap {
  let layout: SplitRingLayout
  let indirectCapacity: Int

  init(layout: SplitRingLayout, indirect: Bool) {
    self.layout = layout
    indirectCapacity = indirect ? min(8, Int(layout.size)) : 0
  }

  /// From the receive ring to the transmit ring: whole cache lines.
  var ringStride: Int { (layout.totalBytes + 63) & ~63 }
  var indirectOffset: Int { 2 * ringStride }
  var headerOffset: Int { indirectOffset + 16 * indirectCapacity * Int(layout.size) }
  var totalBytes: Int { headerOffset + 64 }
}

// MARK: - Transmission

extension VirtioQueuePair {
  var transmitCapacity: Int { size }

  func transmit(_ entries: Span<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    var done = 0
    while done < entries.count {
      // A run of plain frames keeps the ring's indices in registers.
      var end = done
      while end < entries.count, unsafe entries[unchecked: end].isPlain { end &+= 1 }
      if end > done {
        done &+= addPlain(entries, from: done, to: end)
        if done < end { break }
      } else {
        do throws(NetworkDeviceError) {
          guard unsafe try addChain(entries[unchecked: done]) else { break }
        } catch {
          // What went before it is in the ring and counts; the next call begins with this frame.
          guard done > 0 else { throw error }
          break
        }
        done &+= 1
      }
    }
    unsafe rings.pointee.transmit.publish()
    return done
  }

  /// Frames in one buffer each: the header in their headroom, one descriptor. The number that found room.
  private func addPlain(_ entries: Span<TransmitEntry>, from start: Int, to end: Int) -> Int {
    let slots = slots
    let addressing = addressing
    return unsafe rings.pointee.transmit.add(count: end - start, writable: false) { position in
      let entry = unsafe entries[unchecked: start &+ position]
      let offset = slots.offset(of: entry.slot) &- VirtioNetHeader.size
      // In the headroom before the frame, which nobody else holds.
      unsafe VirtioNetHeader().store(to: slots.base(of: entry.slot).advanced(by: offset))
      return RingBuffer(
        address: addressing.address(of: entry.slot, offset: offset),
        length: UInt32(truncatingIfNeeded: slots.length(of: entry.slot) &+ VirtioNetHeader.size), token: entry.rawValue)
    }
  }

  /// A frame in several buffers, or one whose buffer somebody else holds: the header of zeros, then the frame.
  private func addChain(_ entry: TransmitEntry) throws(NetworkDeviceError) -> Bool {
    var buffers = [RingBuffer(address: zeroHeaderAddress, length: UInt32(VirtioNetHeader.size))]
    var slot = entry.slot
    var length = 0
    for position in 0..<slots.segments(of: entry.slot) {
      if position > 0 { slot = slots.next(after: slot) }
      length += slots.length(of: slot)
      buffers.append(
        RingBuffer(
          address: addressing.address(of: slot, offset: slots.offset(of: slot)),
          length: UInt32(truncatingIfNeeded: slots.length(of: slot))))
    }
    // Received frames may be longer than what may be sent (VIRTIO 1.4 §5.1.4.2); they are never plain.
    guard length <= maximumFrame else {
      throw NetworkDeviceError(
        .frameTooLong, "submit", offered: "a frame of \(length) bytes",
        advice: "this device takes up to \(maximumFrame)")
    }
    do {
      let nothing: [RingBuffer] = []
      return try unsafe rings.pointee.transmit.add(
        readable: buffers.span, writable: nothing.span, token: entry.rawValue)
    } catch {
      throw NetworkDeviceError(
        .frameTooLong, "submit", offered: "\(error)", advice: "use larger buffers or a larger queue")
    }
  }

  func takeReleased(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let count = try unsafe take(&rings.pointee.transmit, min(entries.count, Self.usedCapacity), "transmit")
    for position in 0..<count {
      unsafe entries[unchecked: position] = TransmitEntry(rawValue: unsafe used[position].token)
    }
    return count
  }

  @inline(__always) private func take(
    _ ring: inout SplitDriverRing, _ max: Int, _ name: StaticString
  ) throws(NetworkDeviceError) -> Int {
    do {
      return try unsafe ring.reap(into: used, max: max)
    } catch {
      throw broken("the \(name) ring", "\(error)")
    }
  }

  private func broken(_ what: String, _ how: String) -> NetworkDeviceError {
    NetworkDeviceError(.broken, what, offered: how, advice: "the device breaks the virtio protocol; it is reset")
  }
}

// MARK: - Reception

extension VirtioQueuePair {
  var receiveRoom: Int { unsafe rings.pointee.receive.freeCount }

  func post(_ posted: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    let addressing = addressing
    let count = unsafe rings.pointee.receive.add(count: posted.count, writable: true) { position in
      unsafe addressing.emptyBuffer(posted[unchecked: position])
    }
    unsafe rings.pointee.receive.publish()
    return count
  }

  func takeReceived(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let taken = try unsafe take(&rings.pointee.receive, min(entries.count, Self.usedCapacity), "receive")
    let slots = slots
    let used = unsafe used
    let headerOffset = slots.headroom &- VirtioNetHeader.size
    var count = 0
    var position = 0
    var bytes = 0
    while position < taken {
      let buffer = unsafe used[position]
      let slot = UInt32(truncatingIfNeeded: buffer.token)
      let length = Int(buffer.written) &- VirtioNetHeader.size
      position &+= 1
      // Copied once; only the copy is looked at.
      let header = unsafe VirtioNetHeader(loadingOnceFrom: slots.base(of: slot).advanced(by: headerOffset))
      var isInOneBuffer = true
      // One comparison for both ends: a negative length is a huge number.
      if header.isPlain, header.numBuffers == 1, UInt(bitPattern: length) <= UInt(bitPattern: maximumFrame) {
        slots.setReceived(slot: slot, length: length)
        bytes &+= length
      } else {
        guard try takeUnusual(header, slot, length, &position, taken) else { continue }
        isInOneBuffer = slots.segments(of: slot) == 1 && length <= maximumFrame
      }
      unsafe entries[unchecked: count] = TransmitEntry(receivedIn: slot, isInOneBuffer: isInOneBuffer)
      count &+= 1
    }
    counts.bytesReceived &+= UInt64(truncatingIfNeeded: bytes)
    return count
  }

  /// A frame in several buffers, or with something in its header: false when it was dropped and its buffers posted again.
  ///
  /// - Throws: what breaks the queue; every buffer of this call then waits in `limbo` for the reset.
  private func takeUnusual(
    _ header: VirtioNetHeader, _ slot: UInt32, _ length: Int, _ position: inout Int, _ taken: Int
  ) throws(NetworkDeviceError) -> Bool {
    guard length >= 0 else {
      throw breakWith(taken, "\(length + VirtioNetHeader.size) bytes are less than a net header")
    }
    let buffers: Int
    do {
      buffers = try header.bufferCount(mergeable: features.contains(.mrgRxbuf), queueSize: size)
    } catch {
      throw breakWith(taken, "\(error)")
    }
    slots.setReceived(slot: slot, length: length)
    var last = slot
    var total = length
    limboOfFrame = []
    for _ in 1..<buffers {
      let next = try nextBuffer(&position, taken)
      let nextSlot = UInt32(truncatingIfNeeded: next.token)
      total += Int(next.written)
      // Only the first buffer of a frame has a header (VIRTIO 1.4 §5.1.9.3.2).
      slots.append(
        slot: nextSlot, offset: slots.headroom - VirtioNetHeader.size, length: Int(next.written), to: slot, last: last)
      last = nextSlot
    }
    if (try? header.receiveOffload(frameLength: total, features: features)) == nil {
      counts.receiveDrops &+= 1
      repost(slot, upTo: position)
      return false
    }
    counts.bytesReceived &+= UInt64(truncatingIfNeeded: total)
    return true
  }

  /// The next buffer of a frame: the device shows all of them together, so it is there or the device lies.
  private func nextBuffer(_ position: inout Int, _ taken: Int) throws(NetworkDeviceError) -> UsedBuffer {
    if position < taken {
      position += 1
      return unsafe used[position - 1]
    }
    do {
      if let buffer = try unsafe rings.pointee.receive.nextUsed() {
        limboOfFrame.append(UInt32(truncatingIfNeeded: buffer.token))
        return buffer
      }
    } catch {
      throw breakWith(taken, "\(error)")
    }
    throw breakWith(taken, "buffers of a frame are missing")
  }

  /// Gives the buffers of a dropped frame to the device again; the ring has just freed their places.
  private func repost(_ first: UInt32, upTo position: Int) {
    // They are the ring's again, whatever happens later in this call.
    for index in max(0, position - slots.segments(of: first))..<position { unsafe used[index].token = Self.reposted }
    limboOfFrame = []
    var slot = first
    for _ in 0..<slots.segments(of: first) {
      let next = slots.next(after: slot)
      slots.separate(slot: slot)
      let buffer = addressing.emptyBuffer(slot)
      if unsafe !rings.pointee.receive.add(
        address: buffer.address, length: buffer.length, writable: true, token: buffer.token)
      {
        limbo.append(slot)
      }
      slot = next
    }
    unsafe rings.pointee.receive.publish()
  }

  /// The queue is broken while buffers of this call are in nobody's hands: they are drained with the ring.
  private func breakWith(_ taken: Int, _ how: String) -> NetworkDeviceError {
    for position in 0..<taken where unsafe used[position].token != Self.reposted {
      limboOfFrame.append(UInt32(truncatingIfNeeded: unsafe used[position].token))
    }
    // Each goes home by itself: what was linked to a frame already would otherwise go with its first buffer too.
    for slot in limboOfFrame { slots.separate(slot: slot) }
    limbo += limboOfFrame
    limboOfFrame = []
    unsafe rings.pointee.receive.fail(RingError(.stopped, UInt64(taken)))
    return broken("a received frame", how)
  }
}

// MARK: - Notifications and the end

extension VirtioQueuePair {
  func ring() {
    // Before DRIVER_OK no notification is sent (VIRTIO 1.4 §3.1.1), after the reset began none either.
    guard isLive, let doorbells else { return }
    if unsafe rings.pointee.transmit.needsKick() {
      counts.kicks &+= 1
      doorbells.kickTransmit()
    }
    if unsafe rings.pointee.receive.needsKick() {
      counts.kicks &+= 1
      doorbells.kickReceive()
    }
  }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
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
    unsafe rings.pointee.transmit.drain { transmitted(TransmitEntry(rawValue: $0)) }
    unsafe rings.pointee.receive.drain { posted(UInt32(truncatingIfNeeded: $0)) }
    for slot in limbo { posted(slot) }
    limbo = []
  }

  var statistics: QueueDriverStatistics { counts }
}
