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
    // Two loops, so that neither asks for each packet which one it is.
    if inOrder {
      // What joins the batch is not written over: no more of it than the ring holds.
      let limit = min(max, Int(count &- held))
      var done = 0
      while done < limit {
        var sources = BatchedSources()
        let run = straightRun(with: target, limit &- done)
        let step = relay(to: &target, run, memory.first(), &sources, body)
        let places = UInt32(truncatingIfNeeded: step)
        if step != 0 { joinBatch(id: sources.id, places: places, count: places) }
        held &+= places
        done &+= step
        if step != run { break }
      }
      return done
    }
    var done = 0
    while done < max {
      let shown = DescriptorFlag.word(length: 0, id: 0, flags: next.marks)
      var sources = unsafe ReturnedSources(descriptors + (16 * Int(next.place) + 8), shown)
      // The first that is not published is shown by `publishUsed`.
      if returned == published {
        (firstPlace, firstFlags) = (next.place, next.marks)
        sources.word = DescriptorFlag.word(length: 0, id: 0, flags: next.availableMarks)
      }
      let run = straightRun(with: target, max &- done)
      let step = relay(to: &target, run, memory.first(), &sources, body)
      let places = UInt32(truncatingIfNeeded: step)
      returned &+= places
      hidden &+= places
      usedNext.advance(by: places, size: count)
      done &+= step
      if step != run { break }
    }
    return done
  }

  /// Up to where one of the two rings comes round: so far pointers go straight on.
  @inlinable
  @inline(__always)
  func straightRun(with target: borrowing PackedDeviceRing, _ limit: Int) -> Int {
    least(limit, Int(count &- next.place), Int(target.count &- target.next.place))
  }

  /// The pairs of a straight run; how many it took. The sources are given back by `sources`.
  @inlinable
  @inline(__always)
  mutating func relay<Sources: RelayedSources>(
    to target: inout PackedDeviceRing, _ run: Int, _ memory: FirstRegion, _ returned: inout Sources,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    // Places in their rings.
    let sources = unsafe descriptors + 16 * Int(next.place)
    let targets = unsafe target.descriptors + 16 * Int(target.next.place)
    // Just these flags: whatever else a driver may have set is looked at step by step.
    let sourceFlags = next.availableMarks
    let targetFlags = target.next.availableMarks | DescriptorFlag.write
    let targetShown = DescriptorFlag.word(length: 0, id: 0, flags: target.next.marks | DescriptorFlag.write)
    // The first that is not published is shown by `publishUsed`.
    var targetWord = targetShown
    if target.returned == target.published {
      (target.firstPlace, target.firstFlags) = (target.next.place, target.next.marks | DescriptorFlag.write)
      targetWord = DescriptorFlag.word(length: 0, id: 0, flags: target.next.availableMarks)
    }
    var position = 0
    while position != run {
      let source = unsafe sources + 16 &* position
      let place = unsafe targets + 16 &* position
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
      returned.put(unsafe netdev_load_relaxed_u16(source + 12), position)
      let targetId = unsafe netdev_load_relaxed_u16(place + 12)
      unsafe netdev_store_relaxed_u64(place + 8, targetWord | UInt64(targetId) &<< 32 | UInt64(written))
      targetWord = targetShown
      position &+= 1
    }
    let step = UInt32(truncatingIfNeeded: position)
    takenCount &+= step
    next.advance(by: step, size: count)
    target.takenCount &+= step
    target.returned &+= step
    target.hidden &+= step
    target.next.advance(by: step, size: target.count)
    target.usedNext.advance(by: step, size: target.count)
    return position
  }
}

/// How a relay gives back what it has read.
@usableFromInline
protocol RelayedSources {
  /// The chain of this id, `position` places from where the run began.
  mutating func put(_ id: UInt16, _ position: Int)
}

/// Each by a used descriptor of its own.
@frozen
@usableFromInline
@safe
struct ReturnedSources: RelayedSources {
  /// The second word of the run's first descriptor.
  @usableFromInline let first: UnsafeMutableRawPointer
  /// Flags that show a used descriptor, and those of the next one.
  @usableFromInline let shown: UInt64
  @usableFromInline var word: UInt64

  @inlinable
  @inline(__always)
  init(_ first: UnsafeMutableRawPointer, _ shown: UInt64) {
    unsafe self.first = first
    self.shown = shown
    word = shown
  }

  @inlinable
  @inline(__always)
  mutating func put(_ id: UInt16, _ position: Int) {
    // Of the same ring: below the run.
    unsafe netdev_store_relaxed_u64(first + 16 &* position, word | UInt64(id) &<< 32)
    word = shown
  }
}

/// By one batch, with IN_ORDER: its id is the last one's.
@frozen
@usableFromInline
struct BatchedSources: RelayedSources {
  @usableFromInline var id: UInt16 = 0

  @inlinable
  @inline(__always)
  init() {}

  @inlinable
  @inline(__always)
  mutating func put(_ id: UInt16, _ position: Int) { self.id = id }
}
