public import CNetdevSystem

/// The device side of a split virtqueue (VIRTIO 1.4 §2.7): takes available chains, returns them used.
///
///     var ring = try configuration.activate()
///     _ = try ring.begin()
///     while let chain = try ring.next(in: memory) {
///       ring.pushUsed(head: chain.head, written: fill(chain))
///     }
///     ring.publishUsed()
///     if ring.needsCall() { call() }
///
/// The driver is not trusted. `avail.idx` is read once per batch; each available entry and each descriptor is copied once and
/// only the copy is looked at. A chain that breaks a rule is returned at once with a length of 0 and the error is thrown:
/// the ring goes on with the next chain, unless it was told to stop at the first violation, or the violation is of the ring
/// itself (an impossible index or head): then it is broken, says so, and refuses work until `reset`. It is never wedged.
///
/// A ring belongs to one thread, makes no system call, and allocates nothing once active. The driver's memory outlives it.
@frozen
@safe
public struct SplitDeviceRing: ~Copyable, @unchecked Sendable {
  // Proof of Sendable: a ring cannot be copied, and all that changes it is mutating: whoever does so has it alone.
  // `segments` is its own; the chains that point into it end with their batch and are not Sendable, so a ring changes
  // hands between two batches. The areas are shared with the driver in any case, and are only accessed through
  // atomics.

  // Where the areas are. The entries start after flags and idx.
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let availEntries: UnsafeMutableRawPointer
  @usableFromInline let usedEntries: UnsafeMutableRawPointer
  /// Segments of the chains of one batch: owned, trivial.
  @usableFromInline let segments: UnsafeMutablePointer<BufferSegment>
  /// How many segments there is room for; at least as many as the ring has descriptors.
  @usableFromInline let segmentCapacity: Int
  /// Size minus one.
  @usableFromInline let mask: UInt32
  @usableFromInline let eventIndex: Bool
  @usableFromInline let inOrder: Bool
  @usableFromInline let indirect: Bool
  @usableFromInline let stopsAtMalformedChain: Bool

  // Indices count from the start index and wrap at 2³²; their low 16 bits are the ring's own (65536 divides 2³²).

  /// The next available entry to take.
  @usableFromInline var availIndex: UInt32
  /// As far as `avail.idx` is known to have come.
  @usableFromInline var availSeen: UInt32
  /// Where the next used element goes.
  @usableFromInline var usedIndex: UInt32
  /// What the driver may see.
  @usableFromInline var published: UInt32
  /// `published` when `needsCall` was last asked.
  @usableFromInline var callChecked: UInt32
  /// The available index below which nothing can be rewound: the start of the batch, or after a malformed chain.
  @usableFromInline var rewindFloor: UInt32
  /// Segments in use by the chains of this batch.
  @usableFromInline var segmentCount: Int
  /// The first notification after a start is unconditional: a stale used_event must not lose it.
  @usableFromInline var callUnconditionally: Bool
  /// What ended the last batch after some of its chains were good: thrown by the next one.
  @usableFromInline var deferred: RingError?

  /// What broke the ring, or nil while it works.
  public internal(set) var failure: RingError?
  /// Chains that broke a rule, since the start.
  public internal(set) var malformedChains: UInt64

  init(
    layout: SplitRingLayout, descriptors: UnsafeMutableRawPointer, avail: UnsafeMutableRawPointer,
    used: UnsafeMutableRawPointer, segmentCapacity: Int, eventIndex: Bool, inOrder: Bool, indirect: Bool,
    stopsAtMalformedChain: Bool
  ) {
    unsafe self.descriptors = descriptors
    unsafe availEntries = avail + 4
    unsafe usedEntries = used + 4
    unsafe segments = .allocate(capacity: segmentCapacity)
    self.segmentCapacity = segmentCapacity
    mask = UInt32(layout.size) - 1
    self.eventIndex = eventIndex
    self.inOrder = inOrder
    self.indirect = indirect
    self.stopsAtMalformedChain = stopsAtMalformedChain
    availIndex = 0
    availSeen = 0
    usedIndex = 0
    published = 0
    callChecked = 0
    rewindFloor = 0
    segmentCount = 0
    callUnconditionally = true
    deferred = nil
    failure = nil
    malformedChains = 0
  }

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit { unsafe segments.deallocate() }

  /// Number of descriptors.
  @inlinable public var size: Int { Int(mask) + 1 }
  /// True once the ring itself was violated, or stopped: it refuses work until `reset`.
  @inlinable public var isBroken: Bool { failure != nil }
  /// Chains taken and not returned yet.
  @inlinable public var outstanding: Int { Int(availIndex &- usedIndex) }
  /// The next available entry to take: what a back-end answers to GET_VRING_BASE.
  @inlinable public var nextAvailIndex: UInt16 { UInt16(truncatingIfNeeded: availIndex) }
  /// Chains seen and not taken yet.
  @inlinable public var seen: Int { Int(availSeen &- availIndex) }

  // MARK: Taking

  /// Begins a batch: looks at `avail.idx` once and says how many chains may be taken now. Throws what broke the ring.
  ///
  /// The segments of earlier batches are gone.
  @inlinable
  @inline(__always)
  public mutating func begin() throws(RingError) -> Int {
    let index = unsafe netdev_load_acquire_u16(availEntries - 2)
    let advance = UInt32(index &- UInt16(truncatingIfNeeded: availIndex))
    guard advance <= mask &+ 1, failure == nil else { throw refuseAvail(index) }
    availSeen = availIndex &+ advance
    rewindFloor = availIndex
    segmentCount = 0
    return Int(advance)
  }

  /// The next chain of this batch, or nil at its end; `begin` starts another.
  ///
  /// Throws the rule that a chain broke. Unless the ring is then broken, that chain has been put on the used ring with a
  /// length of 0, to be published with the others, and the next call goes on with the chain after it.
  @inlinable
  @inline(__always)
  public mutating func next(in memory: borrowing GuestMemory) throws(RingError) -> DescriptorChain? {
    guard availIndex != availSeen else { return nil }
    let head = UInt32(unsafe netdev_load_relaxed_u16(availEntries + 2 * Int(availIndex & mask)))
    guard head <= mask else { throw fail(RingError(.headOutOfRange, UInt64(head))) }
    // Both halves are loaded once; from here on only these copies count.
    let descriptor = unsafe descriptors + 16 * Int(head)
    let address = unsafe netdev_load_relaxed_u64(descriptor)
    let word = unsafe netdev_load_relaxed_u64(descriptor + 8)
    let flags = UInt16(truncatingIfNeeded: word &>> 32)
    let isWritable = flags & DescriptorFlag.write != 0
    let length = UInt32(truncatingIfNeeded: word)
    guard flags & (DescriptorFlag.next | DescriptorFlag.indirect) == 0, segmentCount != segmentCapacity,
      let base = unsafe memory.pointer(to: address, length: length, forWriting: isWritable)
    else { return try walk(head: head, address: address, word: word, in: memory) }
    // Below the capacity.
    let segment = unsafe segments + segmentCount
    unsafe segment.initialize(to: BufferSegment(base: base, length: Int(length)))
    segmentCount &+= 1
    availIndex &+= 1
    return unsafe DescriptorChain(
      singleHead: UInt16(truncatingIfNeeded: head), isWritable: isWritable, segment: segment)
  }

  /// Begins a batch and takes up to `max` chains of it into `output`; says how many. `output` has room for `max`.
  ///
  /// A chain that breaks a rule ends the batch: what came before it is returned and the error is thrown by the next call.
  @inlinable
  public mutating func pop(
    into output: UnsafeMutablePointer<DescriptorChain>, max: Int, in memory: borrowing GuestMemory
  ) throws(RingError) -> Int {
    let limit = min(try beginOrThrowDeferred(), Swift.max(max, 0))
    let end = availIndex &+ UInt32(truncatingIfNeeded: limit)
    var place = unsafe output
    while availIndex != end {
      unsafe place += popSingles(into: place, until: end, in: memory)
      guard availIndex != end else { break }
      // A chain of several buffers, or something wrong: step by step.
      do throws(RingError) {
        guard let chain = try next(in: memory) else { break }
        unsafe place.initialize(to: chain)
        unsafe place += 1
      } catch {
        if unsafe place == output { throw error }
        deferred = error
        break
      }
    }
    return unsafe place - output
  }

  /// Takes chains of one good buffer up to the index `end`, as long as they come and there are segments; says how many.
  ///
  /// `end` is no further than `availSeen`, and `output` has room.
  @inlinable
  @inline(__always)
  mutating func popSingles(
    into output: UnsafeMutablePointer<DescriptorChain>, until end: UInt32, in memory: borrowing GuestMemory
  ) -> Int {
    let entries = unsafe availEntries
    let table = unsafe descriptors
    let refused = Self.flagsRefused(in: memory)
    let mask = mask
    let first = availIndex
    var index = first
    var segment = unsafe segments + segmentCount
    // Each takes one segment: with this end there is room without looking.
    let room = UInt32(truncatingIfNeeded: min(Int(end &- first), segmentCapacity &- segmentCount))
    let last = first &+ room
    var place = unsafe output
    while index != last {
      let head = UInt32(unsafe netdev_load_relaxed_u16(entries + 2 * Int(index & mask)))
      guard head <= mask,
        unsafe Self.single(
          head: head, descriptors: table, refused: refused, in: memory, into: segment, chain: place)
      else { break }
      unsafe segment += 1
      unsafe place += 1
      index &+= 1
    }
    availIndex = index
    segmentCount &+= Int(index &- first)
    return unsafe place - output
  }

  /// Begins a batch, gives up to `max` chains to `body`, and puts each on the used ring with the length that `body` says;
  /// says how many. The caller then publishes.
  ///
  /// Errors as with `pop`: the chains before a violation have been served.
  ///
  /// - Throws: `RingError` when the driver broke the protocol: the ring serves nothing more.
  @inlinable
  @inline(__always)
  public mutating func serve(
    max: Int, in memory: borrowing GuestMemory, _ body: (DescriptorChain) -> UInt32
  ) throws(RingError) -> Int {
    let limit = min(try beginOrThrowDeferred(), Swift.max(max, 0))
    let start = availIndex
    let end = start &+ UInt32(truncatingIfNeeded: limit)
    while true {
      serveSingles(until: end, in: memory, body)
      guard availIndex != end else { return limit }
      // A chain of several buffers, or something wrong: step by step. Each chain is done with before the next.
      segmentCount = 0
      let done = availIndex &- start
      do throws(RingError) {
        guard let chain = try next(in: memory) else { return Int(done) }
        pushUsed(head: chain.head, written: body(chain))
      } catch {
        if done == 0 { throw error }
        deferred = error
        return Int(done)
      }
    }
  }

  /// Takes, serves and returns chains of one good buffer up to the index `end`, as long as they come.
  ///
  /// `end` is no further than `availSeen`.
  @inlinable
  @inline(__always)
  mutating func serveSingles(until end: UInt32, in memory: borrowing GuestMemory, _ body: (DescriptorChain) -> UInt32) {
    let entries = unsafe availEntries
    let elements = unsafe usedEntries
    let table = unsafe descriptors
    let segment = unsafe segments
    let refused = Self.flagsRefused(in: memory)
    let mask = mask
    var index = availIndex
    var used = usedIndex
    while index != end {
      let head = UInt32(unsafe netdev_load_relaxed_u16(entries + 2 * Int(index & mask)))
      var chain = unsafe DescriptorChain(singleHead: 0, isWritable: false, segment: segment)
      guard head <= mask,
        unsafe Self.single(
          head: head, descriptors: table, refused: refused, in: memory, into: segment, chain: &chain)
      else { break }
      let written = body(chain)
      let element = unsafe elements + 8 * Int(used & mask)
      unsafe netdev_store_relaxed_u32(element, head)
      unsafe netdev_store_relaxed_u32(element + 4, written)
      index &+= 1
      used &+= 1
    }
    availIndex = index
    usedIndex = used
  }

  /// Copies descriptor `head` once; when it is a chain of one buffer in the first region, stores its segment and its chain.
  ///
  /// `head` is below the size; `segment` and `chain` have room for one; `refused` is `flagsRefused` of the same memory.
  @inlinable
  @inline(__always)
  static func single(
    head: UInt32, descriptors: UnsafeMutableRawPointer, refused: UInt64, in memory: borrowing GuestMemory,
    into segment: UnsafeMutablePointer<BufferSegment>, chain: UnsafeMutablePointer<DescriptorChain>
  ) -> Bool {
    let descriptor = unsafe descriptors + 16 * Int(head)
    let address = unsafe netdev_load_relaxed_u64(descriptor)
    let word = unsafe netdev_load_relaxed_u64(descriptor + 8)
    let length = UInt32(truncatingIfNeeded: word)
    guard word & refused == 0, let base = unsafe memory.firstPointer(to: address, length: length) else { return false }
    unsafe segment.initialize(to: BufferSegment(base: base, length: Int(length)))
    unsafe chain.initialize(
      to: DescriptorChain(
        singleHead: UInt16(truncatingIfNeeded: head), isWritable: word & Self.writeBit != 0, segment: segment))
    return true
  }

  /// WRITE in the second word of a descriptor.
  @inlinable static var writeBit: UInt64 { UInt64(DescriptorFlag.write) << 32 }

  /// The flags that send a descriptor the long way: more than one buffer, or writing where the first region is read-only.
  @inlinable
  @inline(__always)
  static func flagsRefused(in memory: borrowing GuestMemory) -> UInt64 {
    let several = UInt64(DescriptorFlag.next | DescriptorFlag.indirect) << 32
    return memory.firstIsWritable ? several : several | writeBit
  }

  @inlinable
  @inline(__always)
  mutating func beginOrThrowDeferred() throws(RingError) -> Int {
    if let error = deferred {
      deferred = nil
      throw error
    }
    return try begin()
  }

  /// Puts the last `count` chains back as if they had not been taken: a frame did not fit, or there is no more room.
  ///
  /// They are the last of this batch, none of them has been returned, and no malformed chain lies among them; else `.rewind`.
  ///
  /// - Throws: `RingError` when fewer chains than that have been taken.
  public mutating func rewind(_ count: Int) throws(RingError) {
    guard count >= 0, count <= min(outstanding, Int(availIndex &- rewindFloor)) else {
      throw RingError(.rewind, UInt64(truncatingIfNeeded: count))
    }
    availIndex &-= UInt32(truncatingIfNeeded: count)
  }

  // MARK: Failing

  @usableFromInline
  @inline(never)
  mutating func refuseAvail(_ index: UInt16) -> RingError {
    if let failure { return failure }
    return fail(RingError(.availIndexJump, UInt64(index)))
  }

  /// Breaks the ring: nothing more is taken. Returns the first error that broke it.
  ///
  /// Chains that are outstanding can still be returned and published.
  @discardableResult
  @inline(never)
  public mutating func fail(_ error: RingError) -> RingError {
    if let failure { return failure }
    failure = error
    availSeen = availIndex
    return error
  }
}
