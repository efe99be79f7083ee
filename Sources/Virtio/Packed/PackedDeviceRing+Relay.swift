public import CNetdevSystem

/// From one ring straight to another, for a device that carries frames between the two.
extension PackedDeviceRing {
  /// Takes pairs of chains, one buffer to read from this ring and one buffer to write from `target`, gives each pair to `body`,
  /// and returns both.
  @inlinable
  @inline(__always)
  public mutating func relay(
    to target: inout PackedDeviceRing, max: Int, in memory: borrowing GuestMemory,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    // With nothing in hand a chain is used where it was available; and where writing needs a closer look, or a ring is broken,
    // everything goes step by step.
    target.flushBatch()
    guard memory.firstIsWritable, outstanding == 0, target.outstanding == 0, failure == nil, target.failure == nil
    else { return 0 }
    // Two loops, so that neither asks for each packet which one it is. What joins a batch is not written over: no more of it than
    // the ring holds.
    if inOrder { return relay(to: &target, min(max, Int(count &- held)), memory.first(), BatchedSources(), body) }
    return relay(to: &target, max, memory.first(), ReturnedSources(flags: usedFlags(0)), body)
  }

  /// The same, with sources that are given back in this way.
  @inlinable
  @inline(__always)
  mutating func relay<Sources: RelayedSources>(
    to target: inout PackedDeviceRing, _ limit: Int, _ memory: FirstRegion, _ sources: Sources,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    var sources = sources
    var next = next
    var targetNext = target.next
    var done = 0
    // What the first one that is not published looks like is no other's: it goes by itself, so that the others need not ask.
    let isFirst = target.returned == target.published || (!Sources.isBatch && returned == published)
    var run = isFirst ? min(limit, 1) : limit
    var targetUsed = target.usedFlags(DescriptorFlag.write)
    // A look first, which costs a frame that comes alone less than what follows.
    while done < limit, isAvailable(next) {
      // Up to where one of the two rings comes round: so far pointers go straight on.
      run = least(run, Int(count &- next.place), Int(target.count &- targetNext.place))
      // Places in their rings.
      let start = unsafe descriptors + 16 * Int(next.place)
      let targetStart = unsafe target.descriptors + 16 * Int(targetNext.place)
      // Just these flags: whatever else a driver may have set is looked at step by step.
      let sourceFlags = next.availableMarks
      let targetFlags = targetNext.availableMarks | DescriptorFlag.write
      var position = 0
      while position != run {
        let source = unsafe start + 16 &* position
        let place = unsafe targetStart + 16 &* position
        // The flags first, and each field once.
        guard unsafe netdev_load_acquire_u16(source + 14) == sourceFlags,
          unsafe netdev_load_acquire_u16(place + 14) == targetFlags
        else { break }
        let sourceLength = unsafe netdev_load_relaxed_u32(source + 8)
        let targetLength = unsafe netdev_load_relaxed_u32(place + 8)
        guard
          let sourceBase = unsafe memory.place(of: netdev_load_relaxed_u64(source), length: sourceLength),
          let targetBase = unsafe memory.place(of: netdev_load_relaxed_u64(place), length: targetLength),
          let written = body(
            unsafe BufferSegment(base: sourceBase, length: Int(sourceLength)),
            unsafe BufferSegment(base: targetBase, length: Int(targetLength)))
        else { break }
        // Used where it was available: the id is there already.
        unsafe sources.put(source)
        unsafe netdev_store_relaxed_u32(place + 8, written)
        unsafe netdev_store_relaxed_u16(place + 14, targetUsed)
        position &+= 1
      }
      next.advance(by: UInt32(truncatingIfNeeded: position), size: count)
      targetNext.advance(by: UInt32(truncatingIfNeeded: position), size: target.count)
      done &+= position
      if position != run { break }
      sources.flags = next.marks
      targetUsed = targetNext.marks | DescriptorFlag.write
      run = limit &- done
    }
    let places = UInt32(truncatingIfNeeded: done)
    self.next = next
    takenCount &+= places
    if Sources.isBatch {
      held &+= places
      if done != 0 { joinBatch(id: sources.lastId, places: places, count: places) }
    } else {
      usedNext = next
      returned &+= places
      hidden &+= places
    }
    (target.next, target.usedNext) = (targetNext, targetNext)
    target.takenCount &+= places
    target.returned &+= places
    target.hidden &+= places
    return done
  }
}

/// How a relay gives back what it has read.
@usableFromInline
protocol RelayedSources {
  /// Whether all become one batch.
  static var isBatch: Bool { get }
  /// The flags of a used descriptor.
  var flags: UInt16 { get set }
  /// The last one's id, of a batch.
  var lastId: UInt16 { get }

  /// The chain of the descriptor at `place`.
  mutating func put(_ place: UnsafeMutableRawPointer)
}

/// Each by a used descriptor of its own, where it was available: the id is there already.
@frozen
@usableFromInline
struct ReturnedSources: RelayedSources {
  @inlinable static var isBatch: Bool { false }
  @usableFromInline var flags: UInt16
  @inlinable var lastId: UInt16 { 0 }

  @inlinable
  @inline(__always)
  init(flags: UInt16) { self.flags = flags }

  @inlinable
  @inline(__always)
  mutating func put(_ place: UnsafeMutableRawPointer) {
    unsafe netdev_store_relaxed_u32(place + 8, 0)
    unsafe netdev_store_relaxed_u16(place + 14, flags)
  }
}

/// With IN_ORDER, by one used descriptor for all of them.
@frozen
@usableFromInline
struct BatchedSources: RelayedSources {
  @inlinable static var isBatch: Bool { true }
  @usableFromInline var flags: UInt16 = 0
  @usableFromInline var lastId: UInt16 = 0

  @inlinable
  @inline(__always)
  init() {}

  @inlinable
  @inline(__always)
  mutating func put(_ place: UnsafeMutableRawPointer) { lastId = unsafe netdev_load_relaxed_u16(place + 12) }
}
