public import CNetdevSystem

/// The device side of a split virtqueue (VIRTIO 1.4 §2.7); see `DeviceRing`.
///
/// `avail.idx` is read once per batch; each available entry and each descriptor is copied once and only the copy is looked at. An
/// impossible index or head breaks the ring itself.
@frozen
@safe
public struct SplitDeviceRing: DeviceRing, ~Copyable, @unchecked Sendable {
  /// Split.
  @inlinable public static var format: RingFormat { .split }

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
  @usableFromInline var putBackFloor: UInt32
  /// With IN_ORDER: chains that were only read, returned and not on the used ring yet, and the last one's head.
  @usableFromInline var batchCount: UInt32
  @usableFromInline var batchHead: UInt16
  /// Segments in use by the chains of this batch.
  @usableFromInline var segmentCount: Int
  /// The first notification after a start is unconditional: a stale used_event must not lose it.
  @usableFromInline var callUnconditionally: Bool

  /// What broke the ring, or nil while it works.
  public internal(set) var failure: RingError?
  /// Chains that broke a rule, since the start.
  public internal(set) var malformedChains: UInt64

  init(
    layout: RingLayout, descriptors: UnsafeMutableRawPointer, avail: UnsafeMutableRawPointer,
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
    putBackFloor = 0
    batchCount = 0
    batchHead = 0
    segmentCount = 0
    callUnconditionally = true
    failure = nil
    malformedChains = 0
  }

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit { unsafe segments.deallocate() }

  /// Number of descriptors.
  @inlinable public var size: Int { Int(mask) + 1 }
  /// Chains taken and not returned yet.
  @inlinable public var outstanding: Int { Int(availIndex &- usedIndex &- batchCount) }
  /// Chains taken since the start, less those that were put back, from some number on.
  @inlinable public var taken: UInt32 { availIndex }
  /// The next available entry to take: what a back-end answers to GET_VRING_BASE.
  @inlinable public var nextAvailIndex: UInt16 { UInt16(truncatingIfNeeded: availIndex) }
  /// Chains seen and not taken yet.
  @inlinable var seen: Int { Int(availSeen &- availIndex) }
  /// Whether this batch has chains that were not taken.
  @inlinable public var hasMore: Bool { availSeen != availIndex }
  /// Whether the last `take` has left a chain because this batch has no room for its segments: it leaves none otherwise.
  @inlinable public var lacksRoom: Bool { hasMore }
  /// How many chains this batch has that were not taken, at most `limit`.
  @inlinable public func available(upTo limit: Int) -> Int { min(seen, limit) }

  // MARK: Taking

  /// Begins a batch: looks at `avail.idx` once and says whether there is a chain to take. None in a ring that is broken.
  ///
  /// The segments of earlier batches are gone.
  @inlinable
  @inline(__always)
  @discardableResult public mutating func refresh() -> Bool {
    let index = unsafe netdev_load_acquire_u16(availEntries - 2)
    let advance = UInt32(index &- UInt16(truncatingIfNeeded: availIndex))
    guard advance <= mask &+ 1, failure == nil else {
      fail(RingError(.availIndexJump, UInt64(index)))
      return false
    }
    availSeen = availIndex &+ advance
    putBackFloor = availIndex
    segmentCount = 0
    return advance != 0
  }

  /// The next chain of this batch that breaks no rule, or nil at its end.
  @inlinable
  @inline(__always)
  public mutating func take(in memory: borrowing GuestMemory) -> DescriptorChain? {
    guard availIndex != availSeen else { return nil }
    if let chain = takeSingle(in: memory) { return chain }
    return takeOther(in: memory)
  }

  /// The next chain of this batch, or nil at its end; `refresh` starts another.
  ///
  /// Throws the rule that a chain broke. Unless the ring is then broken, that chain has been put on the used ring with a
  /// length of 0, to be published with the others, and the next call goes on with the chain after it.
  public mutating func next(in memory: borrowing GuestMemory) throws(RingError) -> DescriptorChain? {
    guard availIndex != availSeen else { return nil }
    if let chain = takeSingle(in: memory) { return chain }
    let head = UInt32(unsafe netdev_load_relaxed_u16(availEntries + 2 * Int(availIndex & mask)))
    guard head <= mask else { throw fail(RingError(.headOutOfRange, UInt64(head))) }
    // Both halves are loaded once; from here on only these copies count.
    let descriptor = unsafe descriptors + 16 * Int(head)
    return try unsafe walk(
      head: head, address: netdev_load_relaxed_u64(descriptor), word: netdev_load_relaxed_u64(descriptor + 8),
      in: memory)
  }

  /// A chain of one buffer in the ring itself that breaks no rule. Nil for any other: it is then as if nobody had looked.
  @inlinable
  @inline(__always)
  mutating func takeSingle(in memory: borrowing GuestMemory) -> DescriptorChain? {
    let head = UInt32(unsafe netdev_load_relaxed_u16(availEntries + 2 * Int(availIndex & mask)))
    guard head <= mask else { return nil }
    // Both halves are loaded once; from here on only these copies count.
    let descriptor = unsafe descriptors + 16 * Int(head)
    let address = unsafe netdev_load_relaxed_u64(descriptor)
    let word = unsafe netdev_load_relaxed_u64(descriptor + 8)
    let flags = UInt16(truncatingIfNeeded: word &>> 32)
    let isWritable = flags & DescriptorFlag.write != 0
    let length = UInt32(truncatingIfNeeded: word)
    guard flags & (DescriptorFlag.next | DescriptorFlag.indirect) == 0, segmentCount != segmentCapacity,
      let base = unsafe memory.pointer(to: address, length: length, forWriting: isWritable)
    else { return nil }
    // Below the capacity.
    let segment = unsafe segments + segmentCount
    unsafe segment.initialize(to: BufferSegment(base: base, length: Int(length)))
    segmentCount &+= 1
    availIndex &+= 1
    return unsafe DescriptorChain(
      singleHead: UInt16(truncatingIfNeeded: head), isWritable: isWritable, segment: segment)
  }

  /// Puts the last chain back as if it had not been taken.
  ///
  /// - Throws: `.putBack` when another one is the last, or a malformed chain came after it.
  public mutating func putBack(_ chain: DescriptorChain) throws(RingError) {
    // Of a chain that the device has the driver changes nothing; one that does has this chain refused.
    let last = unsafe netdev_load_relaxed_u16(availEntries + 2 * Int((availIndex &- 1) & mask))
    guard outstanding > 0, availIndex != putBackFloor, last == chain.head else {
      throw RingError(.putBack, UInt64(chain.head))
    }
    availIndex &-= 1
  }

  // MARK: Failing

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
