public import CNetdevSystem

/// The device side of a packed virtqueue (VIRTIO 1.4 §2.8); see `DeviceRing`.
///
/// Each descriptor is copied once and only the copy is looked at. An id is the driver's affair: it is given back as it came. A
/// chain without an end, or more than the ring holds, breaks the ring itself.
///
/// The first used descriptor since the last publication keeps marks that say available; `publishUsed` writes them.
@frozen
@safe
public struct PackedDeviceRing: DeviceRing, ~Copyable, @unchecked Sendable {
  // Proof of Sendable: a ring cannot be copied, and all that changes it is mutating: whoever does so has it alone.
  // `segments` is its own; the chains that point into it end with their batch and are not Sendable, so a ring changes
  // hands between two batches. The areas are shared with the driver in any case, and are only accessed through
  // atomics.

  /// Packed.
  @inlinable public static var format: RingFormat { .packed }

  @usableFromInline let descriptors: UnsafeMutableRawPointer
  /// Event suppression, 4 bytes each: the driver's, and ours.
  @usableFromInline let driverEvent: UnsafeMutableRawPointer
  @usableFromInline let deviceEvent: UnsafeMutableRawPointer
  /// Segments of the chains of one batch: owned, trivial.
  @usableFromInline let segments: UnsafeMutablePointer<BufferSegment>
  /// How many segments there is room for; at least as many as the ring has descriptors.
  @usableFromInline let segmentCapacity: Int
  @usableFromInline let count: UInt32
  @usableFromInline let eventIndex: Bool
  @usableFromInline let inOrder: Bool
  @usableFromInline let indirect: Bool
  @usableFromInline let stopsAtMalformedChain: Bool

  /// Where the next available descriptor is looked for.
  @usableFromInline var next: RingPosition
  /// Where the next used descriptor goes.
  @usableFromInline var usedNext: RingPosition
  /// The first used descriptor that is not published: its place, and the flags that publish it.
  @usableFromInline var firstPlace: UInt32
  @usableFromInline var firstFlags: UInt16

  // Chains since the start; wrap.

  /// Chains taken, less those put back.
  @usableFromInline var takenCount: UInt32
  /// Chains with a used descriptor, batches counted whole.
  @usableFromInline var returned: UInt32
  /// What the driver may see.
  @usableFromInline var published: UInt32
  /// `published` when `needsCall` was last asked.
  @usableFromInline var callChecked: UInt32

  /// Descriptors of the chains that are taken and not returned, those of the batch included.
  @usableFromInline var held: UInt32
  /// Chains that may be put back: of this batch, and after a malformed one.
  @usableFromInline var recallable: UInt32
  /// Descriptors used since `needsCall` was last asked, no more than a lap; and those that are not published yet.
  @usableFromInline var unannounced: UInt32
  @usableFromInline var hidden: UInt32
  /// With IN_ORDER: chains that were only read and have no used descriptor yet, their descriptors, and the last one's id.
  @usableFromInline var batchCount: UInt32
  @usableFromInline var batchPlaces: UInt32
  @usableFromInline var batchId: UInt16
  /// Whether the last `take` has left a chain because this batch has no room for its segments.
  @usableFromInline var isFull: Bool
  /// Segments in use by the chains of this batch.
  @usableFromInline var segmentCount: Int
  /// The first notification after a start is unconditional.
  @usableFromInline var callUnconditionally: Bool

  /// What broke the ring, or nil while it works.
  public internal(set) var failure: RingError?
  /// Chains that broke a rule, since the start.
  public internal(set) var malformedChains: UInt64

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit { unsafe segments.deallocate() }

  /// Number of descriptors.
  @inlinable public var size: Int { Int(count) }
  /// Chains taken and not returned yet.
  @inlinable public var outstanding: Int { Int(takenCount &- returned &- batchCount) }
  /// Chains taken since the start, less those that were put back, from some number on.
  @inlinable public var taken: UInt32 { takenCount }
  /// Whether the last `take` has left a chain because this batch has no room for its segments.
  @inlinable public var lacksRoom: Bool { isFull }
  /// Where the next available chain is looked for; the wrap counter in bit 15.
  @inlinable public var nextAvailIndex: UInt16 { next.index }

  // MARK: Taking

  /// Begins a batch: whether there is a chain to take. None in a ring that is broken.
  @inlinable
  @inline(__always)
  @discardableResult public mutating func refresh() -> Bool {
    guard failure == nil else { return false }
    recallable = 0
    segmentCount = 0
    isFull = false
    return hasMore
  }

  /// Whether the next descriptor is available: its marks are that of this lap, and the reverse (§2.8.1).
  @inlinable
  @inline(__always)
  public var hasMore: Bool { available(upTo: 1) != 0 }

  /// How many descriptors are available, at most `limit`.
  @inlinable
  public func available(upTo limit: Int) -> Int {
    guard failure == nil else { return 0 }
    var position = next
    let room = min(limit, Int(count &- held))
    var found = 0
    while found < room, isAvailable(position) {
      position.advance(by: 1, size: count)
      found &+= 1
    }
    return found
  }

  /// Whether the descriptor of this position is available.
  @inlinable
  @inline(__always)
  func isAvailable(_ position: RingPosition) -> Bool {
    // A place in the ring.
    let flags = unsafe netdev_load_acquire_u16(descriptors + (16 * Int(position.place) + 14))
    return flags & DescriptorFlag.marks == position.availableMarks
  }

  /// The next chain that breaks no rule; nil when there is none, or no room for its segments in this batch.
  @inlinable
  @inline(__always)
  public mutating func take(in memory: borrowing GuestMemory) -> DescriptorChain? {
    guard let flags = availableFlags else { return nil }
    if let chain = takeSingle(flags, in: memory) { return chain }
    return takeOther(in: memory)
  }

  /// The next chain, or nil when there is none, or no room for its segments in this batch.
  public mutating func next(in memory: borrowing GuestMemory) throws(RingError) -> DescriptorChain? {
    guard let flags = availableFlags else { return nil }
    if let chain = takeSingle(flags, in: memory) { return chain }
    // A place in the ring.
    return try unsafe walk(Link(descriptors + 16 * Int(next.place), flags), in: memory)
  }

  /// The flags of the next descriptor, loaded once, when it is available.
  @inlinable
  @inline(__always)
  var availableFlags: UInt16? {
    // A place in the ring.
    let flags = unsafe netdev_load_acquire_u16(descriptors + (16 * Int(next.place) + 14))
    return flags & DescriptorFlag.marks == next.availableMarks && failure == nil ? flags : nil
  }

  /// A chain of one buffer in the ring itself that breaks no rule, whose flags have been loaded. Nil for any other: it is then as if
  /// nobody had looked.
  @inlinable
  @inline(__always)
  mutating func takeSingle(_ flags: UInt16, in memory: borrowing GuestMemory) -> DescriptorChain? {
    guard flags & ~DescriptorFlag.write == next.availableMarks else { return nil }
    // A place in the ring. Each field is loaded once, the flags first; from here on only these copies count.
    let link = unsafe Link(descriptors + 16 * Int(next.place), flags)
    let isWritable = flags & DescriptorFlag.write != 0
    guard segmentCount != segmentCapacity, held != count,
      let base = unsafe memory.pointer(to: link.address, length: link.length, forWriting: isWritable)
    else { return nil }
    // Below the capacity.
    let segment = unsafe segments + segmentCount
    unsafe segment.initialize(to: BufferSegment(base: base, length: Int(link.length)))
    segmentCount &+= 1
    goOn(1)
    return unsafe DescriptorChain(singleHead: link.id, isWritable: isWritable, segment: segment)
  }

  /// A descriptor as it was copied.
  @frozen
  @usableFromInline
  struct Link {
    @usableFromInline let address: UInt64
    @usableFromInline let length: UInt32
    @usableFromInline let id: UInt16
    @usableFromInline let flags: UInt16

    /// Copies what is at `place`, whose flags have been loaded.
    @inlinable
    @inline(__always)
    init(_ place: UnsafeMutableRawPointer, _ flags: UInt16) {
      address = unsafe netdev_load_relaxed_u64(place)
      length = unsafe netdev_load_relaxed_u32(place + 8)
      id = unsafe netdev_load_relaxed_u16(place + 12)
      self.flags = flags
    }
  }

  /// Goes on behind a chain of so many descriptors.
  @inlinable
  @inline(__always)
  mutating func goOn(_ places: UInt32) {
    takenCount &+= 1
    held &+= places
    recallable &+= 1
    next.advance(by: places, size: count)
  }

  /// Puts the last chain back as if it had not been taken.
  ///
  /// - Throws: `.putBack` when another one is the last, or a malformed chain came after it.
  public mutating func putBack(_ chain: DescriptorChain) throws(RingError) {
    var last = next
    last.goBack(by: 1, size: count)
    // A place in the ring. Of a chain that the device has the driver changes nothing; one that does has this chain refused.
    let id = unsafe netdev_load_relaxed_u16(descriptors + (16 * Int(last.place) + 12))
    guard outstanding > 0, recallable > 0, chain.places <= held, id == chain.head else {
      throw RingError(.putBack, UInt64(chain.head))
    }
    takenCount &-= 1
    held &-= chain.places
    recallable &-= 1
    next.goBack(by: chain.places, size: count)
  }

  /// Breaks the ring: nothing more is taken. Returns the first error that broke it.
  @discardableResult
  @inline(never)
  public mutating func fail(_ error: RingError) -> RingError {
    if let failure { return failure }
    failure = error
    return error
  }
}
