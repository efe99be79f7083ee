internal import CNetdevSystem
internal import LibeventConcurrency
internal import Glibc
internal import Synchronization

/// Packet buffers of equal size in one shared memory region (a memfd, on huge pages when there are some): one trust domain.
///
/// A pool can be registered with several devices; forwarding between them is then zero-copy. Buffers are taken by queues
/// for reception and by programs for packets of their own, and return when the last reference goes, on whatever thread:
/// to a plain list when that is the loop of the queue which took it, to a lock-free list elsewhere. The region stays mapped
/// until the pool and every packet of it are gone.
@safe public final class PacketPool: Sendable {
  /// How to lay a pool out.
  public struct Configuration: Sendable, Hashable {
    /// Number of buffers, 1 to 1 048 575.
    public var slots: Int
    /// Size of a buffer in bytes, a multiple of 64 from 256 to 65 536 (headroom included).
    public var slotSize: Int
    /// Bytes kept free before a frame, for the net header and for headers that a program prepends; a multiple of 4.
    public var headroom: Int
    /// Buffers that stay for reception, shared evenly by the receive queues of the pool's devices. Programs cannot take them
    /// for packets of their own, no receive queue takes another's share, and a device that is slow to release what it
    /// transmits gets no more frames while it would use them up.
    public var reserve: Int
    /// Tries huge pages (2 MiB) and falls back to ordinary ones.
    public var hugePages: Bool

    /// A layout; the defaults fit Ethernet frames of 1514 bytes with room for every virtio-net header.
    public init(slots: Int = 2048, slotSize: Int = 2048, headroom: Int = 128, reserve: Int = 0, hugePages: Bool = true)
    {
      self.slots = slots
      self.slotSize = slotSize
      self.headroom = headroom
      self.reserve = reserve
      self.hugePages = hugePages
    }
  }

  /// The layout, fixed for the pool's life.
  public let configuration: Configuration
  /// The memfd behind the region, sealed against shrinking; the pool owns it.
  public let descriptor: CInt
  /// Length of the region in bytes.
  public let length: Int
  /// True when the region lies on huge pages.
  public let usesHugePages: Bool

  // Proof for these: `records` and `memory` are set once; what they point to is written only by the owner of a slot.
  @usableFromInline nonisolated(unsafe) let records: UnsafeMutablePointer<SlotRecord>
  nonisolated(unsafe) let memory: UnsafeMutableRawPointer
  private let shared: SharedSlots
  /// The queues that share this pool.
  let queues: PoolQueues
  // Proof: set once; nobody owns this list, and nothing is ever in it.
  nonisolated(unsafe) private let orphan: UnsafeMutablePointer<LocalSlots>
  /// Address of the list of slots that was made last, from which the others follow: they live as long as the pool.
  private let lists = Atomic<UInt>(0)
  private let copyCount = Atomic<Int>(0)
  private let linearCopyCount = Atomic<Int>(0)
  private let heapCount = Atomic<Int>(0)

  /// Makes a pool.
  ///
  /// - Throws: `NetworkDeviceError` with code `invalidConfiguration`, `outOfMemory`, or `system` when something else than memory
  ///   is missing, such as a descriptor.
  public init(_ configuration: Configuration = Configuration()) throws(NetworkDeviceError) {
    try configuration.validate()
    let ordinary = configuration.slots * configuration.slotSize
    let huge = (ordinary + (2 << 20) - 1) & ~((2 << 20) - 1)
    var mapped: (descriptor: CInt, length: Int, address: UnsafeMutableRawPointer, huge: Bool)?
    var refusal: CInt = 0
    if configuration.hugePages { unsafe mapped = Self.map(length: huge, hugePages: true, refusal: &refusal) }
    if unsafe mapped == nil { unsafe mapped = Self.map(length: ordinary, hugePages: false, refusal: &refusal) }
    guard let region = unsafe mapped else { throw NetworkDeviceError(poolOf: ordinary, errno: refusal) }
    self.configuration = configuration
    descriptor = unsafe region.descriptor
    length = unsafe region.length
    unsafe memory = region.address
    usesHugePages = unsafe region.huge
    let list = UnsafeMutablePointer<LocalSlots>.allocate(capacity: 1)
    unsafe orphan = list
    let records = UnsafeMutablePointer<SlotRecord>.allocate(capacity: configuration.slots)
    unsafe self.records = records
    shared = unsafe SharedSlots(records: records)
    queues = PoolQueues(reserve: configuration.reserve, shared: shared)
    unsafe list.initialize(to: LocalSlots(pool: .passUnretained(self)))
    for slot in 0..<configuration.slots {
      let record = unsafe SlotRecord(
        base: memory.advanced(by: slot * configuration.slotSize), home: list, slot: UInt32(slot),
        capacity: UInt32(configuration.slotSize))
      unsafe records.advanced(by: slot).initialize(to: record)
    }
    for slot in stride(from: configuration.slots - 1, through: 0, by: -1) { shared.push(UInt32(slot)) }
    unsafe netdev_poison(memory, ordinary)
  }

  deinit {
    unsafe netdev_unpoison(memory, length)
    unsafe netdev_unmap(memory, length)
    netdev_close(descriptor)
    for slot in 0..<configuration.slots {
      guard let object = unsafe UnsafeRawPointer(bitPattern: records[slot].object) else { continue }
      // One that lay in the shared list: nobody else refers to it.
      unsafe records[slot].object = 0
      unsafe Unmanaged<PacketObject>.fromOpaque(object).release()
    }
    unsafe records.deallocate()
    queues.deallocate()
    unsafe orphan.pointee.slots.deallocate()
    unsafe orphan.deallocate()
  }

  /// Buffers that are free and in nobody's list. A queue's own list holds up to a few hundred more.
  public var available: Int { shared.count }

  /// Buffers that are free, those in queues' lists included: of a queue whose loop works elsewhere at this moment, those that it
  /// kept when it slept last. Exact while the queues of this pool are closed or asleep. From any thread.
  public var free: Int { shared.count + queues.free }

  /// The region as transports map it for a device. The memory lives as long as the pool; who looks at it keeps to the
  /// slots it owns.
  @unsafe public func withMemory<Result>(_ body: (UnsafeMutableRawPointer, Int) -> Result) -> Result {
    unsafe body(memory, length)
  }

  private static func map(
    length: Int, hugePages: Bool, refusal: inout CInt
  ) -> (descriptor: CInt, length: Int, address: UnsafeMutableRawPointer, huge: Bool)? {
    let descriptor = unsafe netdev_memfd_create("netdev-pool", length, hugePages)
    guard descriptor >= 0 else {
      refusal = -descriptor
      return nil
    }
    guard let address = unsafe netdev_map_shared(descriptor, length) else {
      refusal = errno
      netdev_close(descriptor)
      return nil
    }
    return unsafe (descriptor, length, address, hugePages)
  }
}

extension NetworkDeviceError {
  /// Why a pool's memory cannot be had.
  fileprivate init(poolOf bytes: Int, errno number: CInt) {
    let offered = "\(bytes) bytes of shared memory were asked for: \(ErrorNumber(number))"
    switch number {
    // EFAULT: the system has no page although it had promised one. EAGAIN: more than may be locked.
    case ENOMEM, ENOSPC, EFAULT, EAGAIN, EFBIG:
      self.init(.outOfMemory, "PacketPool", offered: offered, advice: "ask for fewer or smaller buffers")
    case EMFILE:
      self.init(.system, "PacketPool", offered: offered, advice: ErrorNumber.moreDescriptors)
    case ENFILE:
      self.init(
        .system, "PacketPool", offered: offered,
        advice: "raise the machine's limit of descriptors (/proc/sys/fs/file-max)")
    default: self.init(.system, "PacketPool", offered: offered)
    }
  }
}

// MARK: - Slots in and out

extension PacketPool {
  /// On its loop: a list for a queue, until that retires it; it lives as long as the pool.
  func makeLocalList(loop: LoopExecutor, counters: QueueCounters) -> UnsafeMutablePointer<LocalSlots> {
    unsafe queues.add(loop, counters) {
      let list = UnsafeMutablePointer<LocalSlots>.allocate(capacity: 1)
      unsafe list.initialize(to: LocalSlots(pool: .passUnretained(self)))
      unsafe list.pointee.earlier = UnsafeMutablePointer(bitPattern: lists.load(ordering: .relaxed))
      lists.store(UInt(bitPattern: list), ordering: .releasing)
      return unsafe list
    }
  }

  /// The list of a queue on this thread's loop; nil where there is none, above all elsewhere than on a loop.
  @inline(__always) var listHere: UnsafeMutablePointer<LocalSlots>? {
    let here = netdev_current_loop_identity()
    guard here != 0 else { return nil }
    var list = unsafe UnsafeMutablePointer<LocalSlots>(bitPattern: lists.load(ordering: .acquiring))
    // Only its own loop finds itself in a list.
    while let candidate = unsafe list, unsafe netdev_load_relaxed_word(&candidate.pointee.loop) != here {
      unsafe list = candidate.pointee.earlier
    }
    return unsafe list
  }

  /// On the owner's loop: gives everything back and nobody owns the list any more.
  func retire(_ list: UnsafeMutablePointer<LocalSlots>) {
    unsafe spill(list, keeping: 0)
    unsafe queues.retire(list)
  }

  /// On the owner's loop: takes up to `wanted` slots from the shared list but leaves at least `leaving` there.
  func replenish(_ list: UnsafeMutablePointer<LocalSlots>, wanted: Int, leaving: Int) {
    guard wanted > 0 else { return }
    let room = unsafe LocalSlots.capacity - list.pointee.count
    let first = unsafe list.pointee.slots.advanced(by: list.pointee.count)
    let taken = unsafe shared.pop(into: first, max: min(wanted, room), leaving: leaving)
    for position in 0..<taken { keepAlive(for: unsafe first[position]) }
    unsafe list.pointee.count += taken
  }

  /// From any thread: takes a slot for a packet of the program's own; nil leaves the reserve to reception, and to senders what
  /// they wait for.
  private func takeSlot() -> UnsafeMutablePointer<SlotRecord>? {
    if let list = unsafe listHere {
      unsafe replenish(list, wanted: Self.slotsAhead, leaving: keptFromPrograms)
      return unsafe takeSpareSlot(of: list)
    }
    var slot: UInt32 = 0
    guard unsafe shared.pop(into: &slot, max: 1, leaving: keptFromPrograms) == 1 else { return nil }
    let record = unsafe records.advanced(by: Int(slot))
    keepAlive(for: slot)
    unsafe record.pointee.unpoison()
    unsafe record.pointee.home = orphan
    return unsafe record
  }

  /// Slots that a queue's list gets at once when a program on its loop makes packets.
  private static let slotsAhead = 32

  /// On the loop of the list's owner: one of those at hand there. What came home last comes first, with its object, and it comes home
  /// here.
  @inline(__always) private func takeSpareSlot(
    of list: UnsafeMutablePointer<LocalSlots>
  ) -> UnsafeMutablePointer<SlotRecord>? {
    guard unsafe spareSlots(list) > 0 else { return nil }
    unsafe list.pointee.count &-= 1
    let record = unsafe records.advanced(by: Int(list.pointee.slots[list.pointee.count]))
    unsafe record.pointee.unpoison()
    unsafe record.pointee.home = list
    return unsafe record
  }

  /// Slots at hand in a list that are a program's to take: as far as the pool keeps its reserve, and what senders wait for, without
  /// them.
  @inline(__always) func spareSlots(_ list: UnsafeMutablePointer<LocalSlots>) -> Int {
    unsafe list.pointee.count &+ min(0, shared.count &- keptFromPrograms)
  }

  /// From any thread: takes exactly so many slots for a program, handing each to `body`, or none if that touched the reserve or
  /// what is claimed.
  func popShared(exactly count: Int, claimed: Int, _ body: (UInt32) -> Void) -> Bool {
    shared.pop(exactly: count, leaving: configuration.reserve + claimed) { slot in
      keepAlive(for: slot)
      unsafe records[Int(slot)].home = orphan
      body(slot)
    }
  }

  /// A slot has left the shared list: the object that travels with it keeps the pool again.
  private func keepAlive(for slot: UInt32) {
    if unsafe records[Int(slot)].object != 0 { _ = unsafe Unmanaged.passRetained(self) }
  }

  /// From any thread: a buffer for a packet of the program's own with room for `count` bytes after the headroom: a slot,
  /// or, when the pool is empty or the frame too large for one, memory of the heap.
  @usableFromInline func makeBuffer(count: Int) -> UnsafeMutablePointer<SlotRecord> {
    if let record = unsafe makeAtHand(count: count) { return unsafe record }
    return unsafe makeBufferSlowly(count: count)
  }

  /// On a loop with a slot at hand, for a frame that it takes: nothing else is looked at.
  @inline(__always) func makeAtHand(count: Int) -> UnsafeMutablePointer<SlotRecord>? {
    let headroom = configuration.headroom
    guard count <= configuration.slotSize &- headroom, let list = unsafe listHere,
      let record = unsafe takeSpareSlot(of: list)
    else { return nil }
    unsafe record.pointee.setFrame(offset: headroom, length: count)
    return unsafe record
  }

  @inline(never) private func makeBufferSlowly(count: Int) -> UnsafeMutablePointer<SlotRecord> {
    let headroom = configuration.headroom
    if count <= configuration.slotSize - headroom, let record = unsafe takeSlot() {
      unsafe record.pointee.setFrame(offset: headroom, length: count)
      return unsafe record
    }
    if count <= configuration.slotSize - headroom { heapCount.add(1, ordering: .relaxed) }
    let record = unsafe HeapBuffer.make(capacity: headroom + count, home: orphan)
    unsafe record.pointee.setFrame(offset: headroom, length: count)
    return unsafe record
  }

  /// True when the record is one of this pool's slots.
  func owns(_ record: UnsafeMutablePointer<SlotRecord>) -> Bool {
    unsafe UInt(bitPattern: record) &- UInt(bitPattern: records)
      < UInt(configuration.slots * MemoryLayout<SlotRecord>.stride)
  }

  /// From any thread: the slot is free; a queue that starves for one is woken.
  func giveBack(_ slot: UInt32) {
    // An object that travels with the slot does not keep the pool while it lies here; the caller does until we return.
    let hasObject = unsafe records[Int(slot)].object != 0
    queues.giveBack(slot)
    if hasObject { unsafe Unmanaged.passUnretained(self).release() }
  }
}

// MARK: - The reserve

extension PacketPool {
  /// Free buffers that a program gets none of: the reserve, and what senders wait for.
  @inline(__always) var keptFromPrograms: Int { configuration.reserve &+ queues.claimed }

  /// Buffers of the reserve that each receive queue can count on.
  var receiveShare: Int { configuration.reserve / queues.count }

  /// Free buffers that a queue keeps at hand while its loop sleeps: all of them together keep a sixteenth of the pool from
  /// the others. In a pool that fits its devices that is a burst each: a loop that sleeps between bursts takes none of their buffers
  /// from the list that all share.
  var idleShare: Int { configuration.slots / (16 * queues.count) }

  /// Frames that each queue may have with its device however few buffers are left: all of them together leave the reserve
  /// and half of the rest.
  var transmitShare: Int {
    max(1, (configuration.slots - configuration.reserve) / (2 * queues.count))
  }
}

// MARK: - Counts

extension PacketPool {
  /// Copies that packets made because somebody else held the bytes.
  public var copies: Int { copyCount.load(ordering: .relaxed) }

  /// Frames in several buffers that somebody asked to see in one piece.
  public var linearCopies: Int { linearCopyCount.load(ordering: .relaxed) }

  /// Packets that would fit into a buffer and lie on the heap, because the pool had none for them: each is copied when it is sent. A
  /// program that keeps packets opens its device with ``NetworkDevice/Configuration/keptPackets``.
  public var heapPackets: Int { heapCount.load(ordering: .relaxed) }

  func noteCopy() { copyCount.add(1, ordering: .relaxed) }

  func noteLinearCopy() { linearCopyCount.add(1, ordering: .relaxed) }
}

// MARK: - Validation

extension PacketPool.Configuration {
  func validate() throws(NetworkDeviceError) {
    func refuse(_ what: String, _ advice: String) -> NetworkDeviceError {
      NetworkDeviceError(.invalidConfiguration, "PacketPool", offered: what, advice: advice)
    }
    guard (1...Self.mostSlots).contains(slots) else {
      throw refuse("\(slots) buffers", "1 to \(Self.mostSlots) are possible")
    }
    guard (256...65_536).contains(slotSize), slotSize % 64 == 0 else {
      throw refuse("buffers of \(slotSize) bytes", "use a multiple of 64 from 256 to 65536")
    }
    guard (32...slotSize / 2).contains(headroom), headroom % 4 == 0 else {
      throw refuse("headroom of \(headroom) bytes", "use a multiple of 4 from 32 to half a buffer")
    }
    guard (0...slots).contains(reserve) else { throw refuse("a reserve of \(reserve)", "0 to \(slots) are possible") }
  }
}
