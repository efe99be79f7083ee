public import CNetdevSystem

/// One buffer for a ring, or one of several in a chain: an address as the device knows it, and a length in bytes.
@frozen
public struct RingBuffer: Hashable, Sendable {
  /// Address in the device's address space.
  public var address: UInt64
  /// Length in bytes.
  public var length: UInt32
  /// Whose buffer it is: given back unchanged when the device has used it. Only a chain's own token counts.
  public var token: UInt64

  /// A buffer of `length` bytes at `address`; `token` names a chain of this one buffer.
  @inlinable
  public init(address: UInt64, length: UInt32, token: UInt64 = 0) {
    self.address = address
    self.length = length
    self.token = token
  }
}

/// A chain that the device has used.
@frozen
public struct UsedBuffer: Hashable, Sendable {
  /// The token that the chain was added with.
  public var token: UInt64
  /// Bytes that the device wrote, never more than the writable bytes of the chain.
  public var written: UInt32

  /// The chain of `token`, with `written` bytes in it.
  @inlinable
  public init(token: UInt64, written: UInt32) {
    self.token = token
    self.written = written
  }
}

/// The driver side of a split virtqueue (VIRTIO 1.4 §2.7): adds chains of buffers, publishes them, takes back what is used.
///
///     var configuration = SplitDriverRing.Configuration(size: 256, descriptors: d, avail: a, used: u)
///     configuration.eventIndex = features.contains(.eventIndex)
///     var ring = try configuration.activate()
///     _ = ring.add(address: iova, length: 1526, writable: true, token: slot)
///     ring.publish()
///     if ring.needsKick() { kick() }
///     while let used = try ring.nextUsed() { … }
///
/// The device is not trusted. Shared tables are only written here, except `used.idx`, the used elements and the suppression
/// area; each of these is read once, copied, and checked against the private shadow table. What fails a check breaks the
/// ring: it throws, refuses work from then on, and keeps every token for `drain` after a confirmed reset.
///
/// A ring belongs to one thread. It makes no system call and allocates nothing once active; the ring's memory is the
/// caller's and outlives it. Errors of the caller leave the ring as it was.
@frozen
@safe
public struct SplitDriverRing: ~Copyable, @unchecked Sendable {
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
  /// In an IN_ORDER batch whose element has been read: chains still to hand out, and the length of the last one.
  @usableFromInline var batchRemaining: UInt32
  @usableFromInline var batchWritten: UInt32
  /// The next `needsKick` says yes: nothing is known yet of what the device saw (VIRTIO 1.4 §2.7.10).
  @usableFromInline var kickUnconditionally: Bool
  @usableFromInline var shadow: ShadowTable

  /// What broke the ring, or nil while it works.
  public internal(set) var failure: RingError?

  init(
    layout: SplitRingLayout, descriptors: UnsafeMutableRawPointer, avail: UnsafeMutableRawPointer,
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
    batchWritten = 0
    kickUnconditionally = true
    shadow = ShadowTable(size: layout.size)
    failure = nil
  }

  /// Number of descriptors.
  @inlinable public var size: Int { Int(mask) + 1 }
  /// Descriptors that may be added; zero in a ring that is broken.
  @inlinable public var freeCount: Int { Int(shadow.free) }
  /// Chains that the device has and that have not been taken back.
  @inlinable public var inFlight: Int { Int(published &- usedIndex) }
  /// Chains added and not published yet.
  @inlinable public var unpublished: Int { Int(availIndex &- published) }
  /// True once a rule was broken or the ring was drained: it refuses work until `reset`.
  @inlinable public var isBroken: Bool { failure != nil }
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
    guard shadow.free != 0 else { return false }
    let head = shadow.take()
    unsafe Self.write(
      head: head, address: address, length: length, writable: writable, token: token, descriptors: descriptors,
      entries: shadow.entries, avail: availEntries + 2 * Int(availIndex & mask))
    unsafe shadow.published[Int(head)] = availIndex
    availIndex &+= 1
    return true
  }

  /// Adds up to `count` buffers, each a chain of its own, and says how many there was room for.
  ///
  /// `buffer` is called once for each, from zero up, and ends the burst with nil: the indices of the whole burst stay in
  /// registers.
  @inlinable
  @inline(__always)
  public mutating func add(count: Int, writable: Bool, _ buffer: (Int) -> RingBuffer?) -> Int {
    let room = min(max(count, 0), Int(shadow.free))
    let descriptors = unsafe descriptors
    let (entries, published) = unsafe (shadow.entries, shadow.published)
    var done = 0
    while done != room {
      // Up to where one of the two circles comes round: so far pointers go straight on. Ids in the circle are below the size.
      let run = min(room &- done, mask.straightRun(from: shadow.taken), mask.straightRun(from: availIndex))
      let freeIds = unsafe shadow.freeIds + Int(shadow.taken & mask)
      let avail = unsafe availEntries + 2 * Int(availIndex & mask)
      var position = 0
      while position != run, let next = buffer(done &+ position) {
        unsafe Self.write(
          head: freeIds[position], address: next.address, length: next.length, writable: writable, token: next.token,
          descriptors: descriptors, entries: entries, avail: avail + 2 &* position)
        // Known where this is inlined: the order of empty buffers is nobody's concern.
        if !writable {
          unsafe published[Int(freeIds[position])] = availIndex &+ UInt32(truncatingIfNeeded: position)
        }
        position &+= 1
      }
      shadow.taken &+= UInt32(truncatingIfNeeded: position)
      availIndex &+= UInt32(truncatingIfNeeded: position)
      done &+= position
      if position != run { break }
    }
    return done
  }

  /// Writes the descriptor, the shadow entry and the available entry of a chain of one buffer.
  ///
  /// The pointers are those of one ring, and `head` is below its size.
  @inlinable
  @inline(__always)
  static func write(
    head: UInt16, address: UInt64, length: UInt32, writable: Bool, token: UInt64, descriptors: UnsafeMutableRawPointer,
    entries: UnsafeMutablePointer<ShadowTable.Entry>, avail: UnsafeMutableRawPointer
  ) {
    let descriptor = unsafe descriptors + 16 * Int(head)
    unsafe netdev_store_relaxed_u64(descriptor, address)
    let flags: UInt16 = writable ? DescriptorFlag.write : 0
    unsafe netdev_store_relaxed_u64(descriptor + 8, DescriptorFlag.word(length: length, flags: flags, next: 0))
    unsafe ShadowTable.Entry.writeSingle(to: entries + Int(head), token: token, writable: writable ? length : 0)
    unsafe netdev_store_relaxed_u16(avail, head)
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

  /// Whether `reapSingles` has left something for `nextUsed` that it saw: a chain of several buffers, one that its `body`
  /// refused, a violation, or, with IN_ORDER, anything.
  @inlinable
  @inline(__always)
  public var hasOthers: Bool { inOrder || usedSeen != usedIndex }

  /// How many chains the device has returned and `nextUsed` would hand out now; throws when `used.idx` is impossible.
  @inlinable
  public mutating func pendingUsed() throws(RingError) -> Int {
    if usedSeen == usedIndex { try refreshUsed() }
    return Int(usedSeen &- usedIndex)
  }

  /// The next chain that the device has used, or nil when there is none; throws what broke the ring.
  @inlinable
  @inline(__always)
  public mutating func nextUsed() throws(RingError) -> UsedBuffer? {
    if usedSeen == usedIndex {
      try refreshUsed()
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
    unsafe entry.pointee.count = 0
    shadow.putChain(head: UInt16(truncatingIfNeeded: id), count: count)
    usedIndex &+= 1
    return unsafe UsedBuffer(token: entry.pointee.token, written: written)
  }

  /// Takes back up to `max` used chains into `output` and says how many; throws what broke the ring.
  ///
  /// What came before a violation is returned; the violation is then thrown by the next call. `output` has room for `max`.
  @inlinable
  public mutating func reap(into output: UnsafeMutablePointer<UsedBuffer>, max: Int) throws(RingError) -> Int {
    try refreshUsed()
    let limit = min(Int(usedSeen &- usedIndex), Swift.max(max, 0))
    if inOrder { return try unsafe reapInOrder(into: output, max: limit) }
    if limit == 1 {
      // Alone, the common case of a lightly loaded ring: what a run costs to begin pays off from the second one.
      guard let used = try nextUsed() else { return 0 }
      unsafe output.initialize(to: used)
      return 1
    }
    let end = usedIndex &+ UInt32(truncatingIfNeeded: limit)
    var place = unsafe output
    while usedIndex != end {
      unsafe place += reapSingles(into: place, until: end)
      guard usedIndex != end else { break }
      // A chain of several buffers, or a violation: step by step.
      do throws(RingError) {
        guard let used = try nextUsed() else { break }
        unsafe place.initialize(to: used)
        unsafe place += 1
      } catch {
        if unsafe place == output { throw error }
        break
      }
    }
    return unsafe place - output
  }

  /// Takes back chains of one buffer up to the index `end`, as long as they come and nothing is wrong; says how many.
  ///
  /// `end` is no further than `usedSeen`, and `output` has room.
  @inlinable
  @inline(__always)
  mutating func reapSingles(into output: UnsafeMutablePointer<UsedBuffer>, until end: UInt32) -> Int {
    reapSingles(until: end) { position, token, written in
      unsafe (output + position).initialize(to: UsedBuffer(token: token, written: written))
      return true
    }
  }

  /// Takes back up to `max` used chains of one buffer, as long as they come, nothing is wrong and `body` says yes; says how
  /// many. Throws what broke the ring.
  ///
  /// `body` gets each one's position from zero up, its token and its length, and a no leaves it on the ring. What is left
  /// there, chains of several buffers and violations included, is for `nextUsed`: with IN_ORDER that is everything.
  @inlinable
  @inline(__always)
  public mutating func reapSingles(
    max: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) throws(RingError) -> Int {
    if inOrder { return 0 }
    try refreshUsed()
    let limit = min(Int(usedSeen &- usedIndex), Swift.max(max, 0))
    return reapSingles(until: usedIndex &+ UInt32(truncatingIfNeeded: limit), body)
  }

  @inlinable
  @inline(__always)
  mutating func reapSingles(
    until end: UInt32, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    let entries = unsafe shadow.entries
    let mask = mask
    let count = Int(end &- usedIndex)
    var done = 0
    while done != count {
      // Up to where one of the two circles comes round: so far pointers go straight on. The free one takes as many ids as
      // it gave.
      let run = min(count &- done, mask.straightRun(from: usedIndex), mask.straightRun(from: shadow.returned))
      let elements = unsafe usedEntries + 8 * Int(usedIndex & mask)
      let freeIds = unsafe shadow.freeIds + Int(shadow.returned & mask)
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
      shadow.returned &+= UInt32(truncatingIfNeeded: position)
      usedIndex &+= UInt32(truncatingIfNeeded: position)
      done &+= position
      if position != run { break }
    }
    return done
  }

  /// Loads `used.idx` and checks that it advanced by no more than what is in flight.
  @inlinable
  @inline(__always)
  mutating func refreshUsed() throws(RingError) {
    let index = unsafe netdev_load_acquire_u16(usedEntries - 2)
    let advance = UInt32(index &- UInt16(truncatingIfNeeded: usedIndex))
    guard advance <= published &- usedIndex, failure == nil else { throw refuseUsed(index) }
    usedSeen = usedIndex &+ advance
  }

  @usableFromInline
  @inline(never)
  mutating func refuseUsed(_ index: UInt16) -> RingError {
    if let failure { return failure }
    return fail(RingError(.usedIndexJump, UInt64(index)))
  }

  /// Breaks the ring: nothing more is added, nothing more is taken back. Returns the first error that broke it.
  ///
  /// Drivers call it for what only they can see, an impossible `num_buffers` for example.
  @discardableResult
  @inline(never)
  public mutating func fail(_ error: RingError) -> RingError {
    if let failure { return failure }
    failure = error
    shadow.close()
    usedSeen = usedIndex
    batchRemaining = 0
    return error
  }
}
