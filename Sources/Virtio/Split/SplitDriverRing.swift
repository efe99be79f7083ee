public import CNetdevSystem

/// The driver side of a split virtqueue (VIRTIO 1.4 §2.7); see `DriverRing`.
///
/// Shared tables are only written here, except `used.idx`, the used elements and the suppression area; each of these is read
/// once, copied, and checked against the private shadow table.
@frozen
@safe
public struct SplitDriverRing: DriverRing, ~Copyable, @unchecked Sendable {
  /// Split.
  @inlinable public static var format: RingFormat { .split }

  // Proof of Sendable: a ring cannot be copied, and all that changes it is mutating: whoever does so has it alone.
  // The shadow table is its own, and no pointer into it gets out; what is handed out are values. The areas and the
  // indirect tables are shared with the device in any case, and are only accessed through atomics from the time the
  // device knows them.

  // Where the areas are. The entries start after flags and idx.
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let availEntries: UnsafeMutableRawPointer
  @usableFromInline let usedEntries: UnsafeMutableRawPointer
  /// Size minus one.
  @usableFromInline let mask: UInt32
  @usableFromInline let eventIndex: Bool
  @usableFromInline let inOrder: Bool
  @usableFromInline let indirect: IndirectTables?

  // Indices count from the start index and wrap at 2³²; their low 16 bits are the ring's own (65536 divides 2³²).

  /// Where the next chain goes.
  @usableFromInline var availIndex: UInt32
  /// What the device may see.
  @usableFromInline var published: UInt32
  /// `published` when `needsKick` was last asked.
  @usableFromInline var kickChecked: UInt32
  /// The first chain that has not been taken back.
  @usableFromInline var usedIndex: UInt32
  /// As far as `used.idx` is known to have come.
  @usableFromInline var usedSeen: UInt32
  /// In an IN_ORDER batch whose element has been read: chains still to hand out.
  @usableFromInline var batchRemaining: UInt32
  /// Outstanding chains of several descriptors: while there are none, order needs no look at the lengths of chains.
  @usableFromInline var several: UInt32
  /// Chains are out in table order, as most devices leave them without having promised it: then the free ids are too, and neither
  /// the circle nor the order of publication need be looked at. Always so with IN_ORDER.
  @usableFromInline var isOrderly: Bool
  /// The next `needsKick` says yes: nothing is known yet of what the device saw (VIRTIO 1.4 §2.7.10).
  @usableFromInline var kickUnconditionally: Bool
  @usableFromInline var shadow: ShadowTable
  @usableFromInline var circle: IdCircle

  /// What broke the ring, or nil while it works.
  public internal(set) var failure: RingError?

  init(
    layout: RingLayout, descriptors: UnsafeMutableRawPointer, avail: UnsafeMutableRawPointer,
    used: UnsafeMutableRawPointer, eventIndex: Bool, inOrder: Bool, indirect: IndirectTables?
  ) {
    unsafe self.descriptors = descriptors
    unsafe availEntries = avail + 4
    unsafe usedEntries = used + 4
    mask = UInt32(layout.size) - 1
    self.eventIndex = eventIndex
    self.inOrder = inOrder
    self.indirect = indirect
    availIndex = 0
    published = 0
    kickChecked = 0
    usedIndex = 0
    usedSeen = 0
    batchRemaining = 0
    several = 0
    isOrderly = true
    kickUnconditionally = true
    shadow = ShadowTable(size: layout.size)
    circle = IdCircle(size: layout.size)
    failure = nil
  }

  /// Number of descriptors.
  @inlinable public var size: Int { Int(mask) + 1 }
  /// Descriptors that may be added; zero in a ring that is broken.
  @inlinable public var freeCount: Int { Int(circle.free) }
  /// Chains that the device has and that have not been taken back.
  @inlinable public var inFlight: Int { Int(published &- usedIndex) }
  /// Chains added and not published yet.
  @inlinable public var unpublished: Int { Int(availIndex &- published) }
  /// The index after the last published chain: what NOTIFICATION_DATA puts in its upper half (§2.9).
  @inlinable public var publishedIndex: UInt16 { UInt16(truncatingIfNeeded: published) }

  /// The index of the first chain that has not been taken back: it moves when, and only when, something comes back.
  @inlinable public var returnedIndex: UInt32 { usedIndex }

  // MARK: Adding

  /// Adds one buffer as a chain of its own; false when the ring is full or broken.
  ///
  /// The buffer is the device's from the next `publish` until its token comes back.
  @inlinable
  @inline(__always)
  public mutating func add(address: UInt64, length: UInt32, writable: Bool, token: UInt64) -> Bool {
    add(count: 1, writable: writable) { _ in RingBuffer(address: address, length: length, token: token) } == 1
  }

  /// Adds up to `count` buffers, each a chain of its own, and says how many there was room for.
  ///
  /// `buffer` is called once for each, from zero up, and ends the burst with nil: the indices of the whole burst stay in
  /// registers.
  @inlinable
  @inline(__always)
  public mutating func add(count: Int, writable: Bool, _ buffer: (Int) -> RingBuffer?) -> Int {
    let room = min(max(count, 0), Int(circle.free))
    if !isOrderly { tidy() }
    var done = 0
    while done != room {
      // Up to where one of the two circles comes round: so far pointers go straight on.
      let run = least(room &- done, mask.straightRun(from: circle.taken), mask.straightRun(from: availIndex))
      let start = circle.taken & mask
      let avail = unsafe availEntries + 2 * Int(availIndex & mask)
      var position = 0
      if isOrderly {
        let descriptors = unsafe descriptors + 16 * Int(start)
        let entries = unsafe shadow.entries + Int(start)
        while position != run, let next = buffer(done &+ position) {
          unsafe Self.write(
            UInt16(truncatingIfNeeded: start) &+ UInt16(truncatingIfNeeded: position), next, writable: writable,
            descriptor: descriptors + 16 &* position, entry: entries + position, avail: avail + 2 &* position)
          position &+= 1
        }
      } else {
        // Ids in the circle are below the size.
        let freeIds = unsafe circle.ids + Int(start)
        while position != run, let next = buffer(done &+ position) {
          let head = unsafe freeIds[position]
          unsafe Self.write(
            head, next, writable: writable, descriptor: descriptors + 16 * Int(head),
            entry: shadow.entries + Int(head), avail: avail + 2 &* position)
          unsafe shadow.published[Int(head)] = availIndex &+ UInt32(truncatingIfNeeded: position)
          position &+= 1
        }
      }
      circle.taken &+= UInt32(truncatingIfNeeded: position)
      availIndex &+= UInt32(truncatingIfNeeded: position)
      done &+= position
      if position != run { break }
    }
    return done
  }

  /// Writes the descriptor, the shadow entry and the available entry of a chain of one buffer, all three of `head`.
  @inlinable
  @inline(__always)
  static func write(
    _ head: UInt16, _ buffer: RingBuffer, writable: Bool, descriptor: UnsafeMutableRawPointer,
    entry: UnsafeMutablePointer<ShadowTable.Entry>, avail: UnsafeMutableRawPointer
  ) {
    unsafe netdev_store_relaxed_u64(descriptor, buffer.address)
    let flags: UInt16 = writable ? DescriptorFlag.write : 0
    unsafe netdev_store_relaxed_u64(
      descriptor + 8, DescriptorFlag.word(length: buffer.length, flags: flags, next: 0))
    unsafe ShadowTable.Entry.writeSingle(to: entry, token: buffer.token, writable: writable ? buffer.length : 0)
    unsafe netdev_store_relaxed_u16(avail, head)
  }

  /// With nothing out, everything is in order again.
  @inlinable
  mutating func tidy() { if availIndex == usedIndex, failure == nil { becomeOrderly() } }

  @usableFromInline
  @inline(never)
  mutating func becomeOrderly() {
    isOrderly = true
    circle.clear()
  }

  /// A chain comes back before an older one: notes the order in which those were published that are out. The circle has table
  /// order, as it had from the start.
  @usableFromInline
  @inline(never)
  mutating func becomeDisorderly() {
    isOrderly = false
    var head = circle.returned & mask
    var index = usedIndex
    while index != availIndex {
      // Masked; the head of an outstanding chain, the oldest first.
      unsafe shadow.published[Int(head)] = index
      head = unsafe (head &+ UInt32(shadow.entries[Int(head)].count)) & mask
      index &+= 1
    }
  }

  /// Makes everything added since the last time visible to the device: one store-release of `avail.idx` (§2.7.13.3).
  @inlinable
  @inline(__always)
  public mutating func publish() {
    guard availIndex != published else { return }
    published = availIndex
    // The available ring's idx lies two bytes before its entries.
    unsafe netdev_store_release_u16(availEntries - 2, UInt16(truncatingIfNeeded: published))
  }

  // MARK: Taking back

  /// Whether a look at the used ring finds anything: a chain, or a reason to throw. One load, changes nothing.
  @inlinable
  @inline(__always)
  public var hasUsed: Bool {
    let index = unsafe netdev_load_relaxed_u16(usedEntries - 2)
    return index != UInt16(truncatingIfNeeded: usedIndex) || failure != nil
  }

  /// Whether the device has used everything that was ever published: it has nothing left. One load, changes nothing; taken
  /// back or not, and false before the first publication.
  @inlinable
  @inline(__always)
  public var isUsedUp: Bool {
    guard published != 0 else { return false }
    return unsafe netdev_load_relaxed_u16(usedEntries - 2) == UInt16(truncatingIfNeeded: published)
  }

  /// Whether `takeSingles` has left something for `nextUsed` that it saw: a chain of several buffers, one that its `body`
  /// refused, a violation, or what it had no room for.
  @inlinable
  @inline(__always)
  public var hasOthers: Bool { usedSeen != usedIndex }

  /// The next chain that the device has used, or nil when there is none; throws what broke the ring.
  @inlinable
  @inline(__always)
  public mutating func nextUsed() throws(RingError) -> UsedBuffer? {
    if usedSeen == usedIndex {
      if !refresh(), let failure { throw failure }
      if usedSeen == usedIndex { return nil }
    }
    if inOrder { return try nextUsedInOrder() }
    let element = unsafe usedEntries + 8 * Int(usedIndex & mask)
    // Read once each, then only the copies are looked at.
    let id = unsafe netdev_load_relaxed_u32(element)
    let written = unsafe netdev_load_relaxed_u32(element + 4)
    guard id <= mask else { throw fail(RingError(.usedIdOutOfRange, UInt64(id))) }
    // Below the size.
    let entry = unsafe shadow.entries + Int(id)
    let count = unsafe entry.pointee.count
    guard count != 0 else { throw fail(RingError(.usedIdNotOutstanding, UInt64(id))) }
    guard unsafe written <= entry.pointee.writable else { throw fail(RingError(.usedLengthTooLong, UInt64(written))) }
    if isOrderly, id != circle.returned & mask { becomeDisorderly() }
    if count > 1 { several &-= 1 }
    unsafe entry.pointee.count = 0
    circle.putChain(head: UInt16(truncatingIfNeeded: id), count: count, links: shadow)
    usedIndex &+= 1
    return unsafe UsedBuffer(token: entry.pointee.token, written: written)
  }

  /// Looks what the device has used: loads `used.idx` and checks that it advanced by no more than what is in flight. False when
  /// the ring is broken.
  @inlinable
  @inline(__always)
  public mutating func refresh() -> Bool {
    let index = unsafe netdev_load_acquire_u16(usedEntries - 2)
    let advance = UInt32(index &- UInt16(truncatingIfNeeded: usedIndex))
    guard advance <= published &- usedIndex, failure == nil else {
      fail(RingError(.usedIndexJump, UInt64(index)))
      return false
    }
    usedSeen = usedIndex &+ advance
    return true
  }

  /// Takes back up to `max` used chains of one buffer that `refresh` saw, as long as they come, nothing is wrong and `body` says
  /// yes; says how many.
  @inlinable
  @inline(__always)
  public mutating func takeSingles(
    max: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    let count = min(Int(usedSeen &- usedIndex), Swift.max(max, 0))
    if isOrderly {
      let done = takeOrderly(count, body)
      return isOrderly ? done : takeAny(count, from: done, body)
    }
    return takeAny(count, from: 0, body)
  }

  /// `takeSingles` of a device that returns chains in any order, from position `start` on.
  @inlinable
  @inline(__always)
  mutating func takeAny(
    _ count: Int, from start: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    let entries = unsafe shadow.entries
    let mask = mask
    var done = start
    while done != count {
      // Up to where one of the two circles comes round: so far pointers go straight on. The free one takes as many ids as
      // it gave.
      let run = least(count &- done, mask.straightRun(from: usedIndex), mask.straightRun(from: circle.returned))
      let elements = unsafe usedEntries + 8 * Int(usedIndex & mask)
      let freeIds = unsafe circle.ids + Int(circle.returned & mask)
      var position = 0
      while position != run {
        // Read once each, then only the copies are looked at.
        let id = unsafe netdev_load_relaxed_u32(elements + 8 &* position)
        let written = unsafe netdev_load_relaxed_u32(elements + 8 &* position + 4)
        guard id <= mask else { break }
        // Below the size.
        let entry = unsafe entries + Int(id)
        guard unsafe entry.pointee.count == 1, unsafe written <= entry.pointee.writable,
          body(done &+ position, unsafe entry.pointee.token, written)
        else { break }
        unsafe entry.pointee.count = 0
        unsafe freeIds[position] = UInt16(truncatingIfNeeded: id)
        position &+= 1
      }
      circle.returned &+= UInt32(truncatingIfNeeded: position)
      usedIndex &+= UInt32(truncatingIfNeeded: position)
      done &+= position
      if position != run { break }
    }
    return done
  }

  /// Breaks the ring: nothing more is added, nothing more is taken back. Returns the first error that broke it.
  ///
  /// Drivers call it for what only they can see, an impossible `num_buffers` for example.
  @discardableResult
  @inline(never)
  public mutating func fail(_ error: RingError) -> RingError {
    if let failure { return failure }
    failure = error
    circle.close()
    usedSeen = usedIndex
    batchRemaining = 0
    return error
  }
}
