public import CNetdevSystem

/// The driver side of a packed virtqueue (VIRTIO 1.4 §2.8); see `DriverRing`.
///
/// One ring of descriptors: the driver makes them available in turn, the device writes used ones over them in turn, and a wrap
/// counter of each side says which is which. What is in flight is found by buffer id, which is the place of the chain's first
/// descriptor as long as the device returns chains in their order, as most devices do without having promised it. One that does not
/// may still have a chain of that id: from then on, until nothing is out any more, other ids are looked for, and the order of
/// publication is noted. With IN_ORDER that is a violation.
///
/// The first descriptor added since the last publication keeps marks that say neither available nor used; `publish` writes them.
@frozen
@safe
public struct PackedDriverRing: DriverRing, ~Copyable, @unchecked Sendable {
  // Proof of Sendable: a ring cannot be copied, and all that changes it is mutating: whoever does so has it alone.
  // The shadow table is its own, and no pointer into it gets out; what is handed out are values. The areas and the
  // indirect tables are shared with the device in any case, and are only accessed through atomics from the time the
  // device knows them.

  /// Packed.
  @inlinable public static var format: RingFormat { .packed }

  @usableFromInline let descriptors: UnsafeMutableRawPointer
  /// Event suppression, 4 bytes each: ours, and the device's.
  @usableFromInline let driverEvent: UnsafeMutableRawPointer
  @usableFromInline let deviceEvent: UnsafeMutableRawPointer
  @usableFromInline let count: UInt32
  @usableFromInline let eventIndex: Bool
  @usableFromInline let inOrder: Bool
  @usableFromInline let indirect: IndirectTables?

  /// Where the next descriptor is made available.
  @usableFromInline var next: RingPosition
  /// Where the next used descriptor is looked for.
  @usableFromInline var usedNext: RingPosition
  /// Descriptors that may be added; zero in a ring that is broken.
  @usableFromInline var free: UInt32
  /// The first descriptor that is not published: its place, and the flags that publish it.
  @usableFromInline var firstPlace: UInt32
  @usableFromInline var firstFlags: UInt16

  // Chains since the ring was laid; wrap.

  /// Chains added.
  @usableFromInline var added: UInt32
  /// Chains that the device may see.
  @usableFromInline var published: UInt32
  /// Chains taken back.
  @usableFromInline var returned: UInt32
  /// `published` when `needsKick` was last asked.
  @usableFromInline var kickChecked: UInt32
  /// Descriptors published since `needsKick` was last asked, no more than a lap; and those that are not published yet.
  @usableFromInline var unannounced: UInt32
  @usableFromInline var hidden: UInt32
  /// In an IN_ORDER batch whose used descriptor has been read: chains still to hand out.
  @usableFromInline var batchRemaining: UInt32
  /// Outstanding chains of several descriptors: while there are none, IN_ORDER needs no look at the lengths of chains.
  @usableFromInline var several: UInt32
  /// Chains are out in the order of their places, each by the id of its first one. Always so with IN_ORDER.
  @usableFromInline var isOrderly: Bool
  /// Where the next free id is looked for, below the size.
  @usableFromInline var idCursor: UInt32
  /// The flags of used descriptors beside their marks, as they were last: most devices set WRITE where they have written, some do
  /// not.
  @usableFromInline var usedKind: UInt16
  /// Whether `takeSingles` has left something that it saw.
  @usableFromInline var othersSeen: Bool
  /// The next `needsKick` says yes: nothing is known yet of what the device saw.
  @usableFromInline var kickUnconditionally: Bool
  @usableFromInline var shadow: ShadowTable

  /// What broke the ring, or nil while it works.
  public internal(set) var failure: RingError?

  /// Number of descriptors.
  @inlinable public var size: Int { Int(count) }
  /// Descriptors that may be added; zero in a ring that is broken.
  @inlinable public var freeCount: Int { Int(free) }
  /// Chains that the device has and that have not been taken back.
  @inlinable public var inFlight: Int { Int(published &- returned) }
  /// Chains added and not published yet.
  @inlinable public var unpublished: Int { Int(added &- published) }
  /// Where the next chain goes; the wrap counter in bit 15 (VIRTIO 1.4 §2.9).
  @inlinable public var publishedIndex: UInt16 {
    var place = next
    place.goBack(by: hidden, size: count)
    return place.index
  }
  /// Chains taken back.
  @inlinable public var returnedIndex: UInt32 { returned }

  // MARK: Adding

  /// Adds one buffer as a chain of its own; false when the ring is full or broken.
  @inlinable
  @inline(__always)
  public mutating func add(address: UInt64, length: UInt32, writable: Bool, token: UInt64) -> Bool {
    add(count: 1, writable: writable) { _ in RingBuffer(address: address, length: length, token: token) } == 1
  }

  /// Adds up to `count` buffers, each a chain of its own, and says how many there was room for.
  @inlinable
  @inline(__always)
  public mutating func add(count wanted: Int, writable: Bool, _ buffer: (Int) -> RingBuffer?) -> Int {
    let room = min(max(wanted, 0), Int(free))
    let kind: UInt16 = writable ? DescriptorFlag.write : 0
    if !isOrderly { tidy() }
    var next = next
    var done = 0
    // The first one of all that are not published has marks that say neither available nor used. It goes by itself, so that the
    // others need not ask.
    var flags = next.availableMarks | kind
    var run = room
    if added == published {
      (firstPlace, firstFlags) = (next.place, flags)
      flags = next.marks ^ DescriptorFlag.marks
      run = min(room, 1)
    }
    while done != room {
      // Up to where the ring comes round: so far pointers go straight on.
      run = min(run, Int(count &- next.place))
      let start = next.place
      let place = unsafe descriptors + 16 * Int(start)
      var position = 0
      if isOrderly {
        let entries = unsafe shadow.entries + Int(start)
        // The second word, without the length. The id is the place, which is below 2¹⁵.
        var word = DescriptorFlag.word(length: 0, id: UInt16(truncatingIfNeeded: start), flags: flags)
        while position != run, let next = buffer(done &+ position) {
          unsafe netdev_store_relaxed_u64(place + 16 &* position, next.address)
          unsafe netdev_store_relaxed_u64(place + 16 &* position + 8, word &+ UInt64(next.length))
          unsafe ShadowTable.Entry.writeSingle(
            to: entries + position, token: next.token, writable: writable ? next.length : 0)
          word &+= 1 &<< 32
          position &+= 1
        }
      } else {
        while position != run, let next = buffer(done &+ position) {
          let id = freeId(for: start &+ UInt32(truncatingIfNeeded: position))
          unsafe netdev_store_relaxed_u64(place + 16 &* position, next.address)
          unsafe netdev_store_relaxed_u64(
            place + 16 &* position + 8, DescriptorFlag.word(length: next.length, id: id, flags: flags))
          // Below the size.
          unsafe ShadowTable.Entry.writeSingle(
            to: shadow.entries + Int(id), token: next.token, writable: writable ? next.length : 0)
          unsafe shadow.published[Int(id)] = added &+ UInt32(truncatingIfNeeded: done &+ position)
          position &+= 1
        }
      }
      next.advance(by: UInt32(truncatingIfNeeded: position), size: count)
      done &+= position
      if position != run { break }
      flags = next.availableMarks | kind
      run = room &- done
    }
    let step = UInt32(truncatingIfNeeded: done)
    added &+= step
    hidden &+= step
    free &-= step
    self.next = next
    return done
  }

  /// With nothing out, everything is in order again.
  @inlinable
  mutating func tidy() { if added == returned, failure == nil { isOrderly = true } }

  /// A chain comes back before an older one: notes the order in which those were published that are out.
  @usableFromInline
  @inline(never)
  mutating func becomeDisorderly() {
    isOrderly = false
    var position = usedNext
    var index = returned
    while index != added {
      // The first place of an outstanding chain, which is its id.
      unsafe shadow.published[Int(position.place)] = index
      position.advance(by: UInt32(unsafe shadow.entries[Int(position.place)].count), size: count)
      index &+= 1
    }
  }

  /// An id that no outstanding chain has: the place's, or the next one that is free. There is one: fewer chains are out than there
  /// are descriptors.
  @usableFromInline
  mutating func freeId(for place: UInt32) -> UInt16 {
    if unsafe shadow.entries[Int(place)].count == 0 { return UInt16(truncatingIfNeeded: place) }
    while true {
      let id = idCursor
      idCursor = id &+ 1 == count ? 0 : id &+ 1
      // Below the size.
      if unsafe shadow.entries[Int(id)].count == 0 { return UInt16(truncatingIfNeeded: id) }
    }
  }

  /// Makes everything added since the last time visible to the device: one store-release of the first one's flags, which are
  /// the last to be written (VIRTIO 1.4 §2.8.21.1).
  @inlinable
  @inline(__always)
  public mutating func publish() {
    guard added != published else { return }
    published = added
    unannounced = min(unannounced &+ hidden, count)
    hidden = 0
    // A place in the ring.
    unsafe netdev_store_release_u16(descriptors + (16 * Int(firstPlace) + 14), firstFlags)
  }

  // MARK: Taking back

  /// Whether the descriptor where the next used one belongs has been used: its marks are those of this lap, both (§2.8.1).
  @inlinable
  @inline(__always)
  var isUsed: Bool {
    // A place in the ring.
    let flags = unsafe netdev_load_acquire_u16(descriptors + (16 * Int(usedNext.place) + 14))
    return flags & DescriptorFlag.marks == usedNext.marks
  }

  /// Whether the device shows a used chain, or there is a reason to throw. One load, changes nothing.
  @inlinable
  @inline(__always)
  public var hasUsed: Bool { batchRemaining != 0 || isUsed || failure != nil }

  /// Whether the device has used the last descriptor that was published, which one load says of chains of one buffer that are
  /// used one by one.
  @inlinable
  @inline(__always)
  public var isUsedUp: Bool {
    guard published != 0 else { return false }
    // With all of them the driver's, nothing that was published is left, and what was published last is written over.
    guard hidden != count else { return true }
    var last = next
    last.goBack(by: hidden &+ 1, size: count)
    let flags = unsafe netdev_load_relaxed_u16(descriptors + (16 * Int(last.place) + 14))
    return flags & DescriptorFlag.marks == last.marks
  }

  /// False when the ring is broken; there is no index to look at.
  @inlinable
  @inline(__always)
  public mutating func refresh() -> Bool { failure == nil }

  /// Whether the last `takeSingles` has left something for `nextUsed` that it saw.
  @inlinable
  @inline(__always)
  public var hasOthers: Bool { othersSeen }

  /// Takes back up to `max` used chains of one buffer, as long as they come, nothing is wrong and `body` says yes; says how many.
  @inlinable
  @inline(__always)
  public mutating func takeSingles(
    max: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    // With nothing out, what the device has marked as used is a violation, and `nextUsed` says which.
    guard published != returned else {
      othersSeen = isUsed
      return 0
    }
    othersSeen = false
    let limit = min(Swift.max(max, 0), Int(published &- returned))
    if isOrderly {
      let done = takeOrderly(limit, body)
      return isOrderly || othersSeen ? done : takeAny(limit, from: done, body)
    }
    return takeAny(limit, from: 0, body)
  }

  /// `takeSingles` of a device that returns chains in any order, from position `start` on.
  @inlinable
  @inline(__always)
  mutating func takeAny(
    _ limit: Int, from start: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    var done = start
    while done != limit {
      // A place in the ring. Read once each, then only the copies are looked at; the flags first, the rest is there when they are.
      let place = unsafe descriptors + 16 * Int(usedNext.place)
      let flags = unsafe netdev_load_acquire_u16(place + 14)
      guard flags & DescriptorFlag.marks == usedNext.marks else { break }
      let written = unsafe netdev_load_relaxed_u32(place + 8)
      let id = UInt32(unsafe netdev_load_relaxed_u16(place + 12))
      guard id < count, unsafe shadow.entries[Int(id)].count == 1, unsafe written <= shadow.entries[Int(id)].writable,
        body(done, unsafe shadow.entries[Int(id)].token, written)
      else {
        othersSeen = true
        break
      }
      unsafe shadow.entries[Int(id)].count = 0
      returned &+= 1
      free &+= 1
      usedNext.advance(by: 1, size: count)
      done &+= 1
    }
    return done
  }

  /// The next chain that the device has used, or nil when there is none; throws what broke the ring.
  @inlinable
  public mutating func nextUsed() throws(RingError) -> UsedBuffer? {
    if let failure { throw failure }
    if batchRemaining != 0 { return takeOldest() }
    guard isUsed else { return nil }
    let (id, written) = try usedChain()
    if inOrder {
      try beginBatch(to: id, written)
      return takeOldest()
    }
    if isOrderly, id != usedNext.place { becomeDisorderly() }
    // Below the size.
    let entry = unsafe shadow.entries[Int(id)]
    unsafe shadow.entries[Int(id)].count = 0
    finish(entry)
    return UsedBuffer(token: entry.token, written: written)
  }

  /// Reads the used descriptor once: the id of an outstanding chain, and a length that fits it.
  @inlinable
  mutating func usedChain() throws(RingError) -> (id: UInt32, written: UInt32) {
    let place = unsafe descriptors + 16 * Int(usedNext.place)
    let flags = unsafe netdev_load_acquire_u16(place + 14)
    let length = unsafe netdev_load_relaxed_u32(place + 8)
    let id = UInt32(unsafe netdev_load_relaxed_u16(place + 12))
    guard id < count else { throw fail(RingError(.usedIdOutOfRange, UInt64(id))) }
    let entry = unsafe shadow.entries[Int(id)]
    guard entry.count != 0, published != returned else { throw fail(RingError(.usedIdNotOutstanding, UInt64(id))) }
    // Without WRITE the length is reserved; not every device sets it that has written something (§2.8.4).
    let written = entry.writable == 0 && flags & DescriptorFlag.write == 0 ? 0 : length
    guard written <= entry.writable else { throw fail(RingError(.usedLengthTooLong, UInt64(written))) }
    return (id, written)
  }

  /// A chain has come back: so many descriptors are free, and so much further the next used one is.
  @inlinable
  mutating func finish(_ entry: ShadowTable.Entry) {
    if entry.count > 1 { several &-= 1 }
    returned &+= 1
    free &+= UInt32(entry.count)
    usedNext.advance(by: UInt32(entry.count), size: count)
  }

  /// Breaks the ring: nothing more is added, nothing more is taken back. Returns the first error that broke it.
  @discardableResult
  @inline(never)
  public mutating func fail(_ error: RingError) -> RingError {
    if let failure { return failure }
    failure = error
    free = 0
    batchRemaining = 0
    othersSeen = false
    return error
  }
}
