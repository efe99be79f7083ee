/// The device side of a virtqueue, whatever its format: takes available chains, returns them used.
///
///     var ring = try configuration.activate()
///     ring.refresh()
///     while let chain = ring.take(in: memory) {
///       ring.pushUsed(chain, written: fill(chain))
///     }
///     ring.publishUsed()
///     if ring.needsCall() { call() }
///
/// The driver is not trusted. What it has written is copied once and only the copy is looked at. A chain that breaks a rule is
/// returned at once with a length of 0 and the error is thrown: the ring goes on with the next chain, unless it was told to stop
/// at the first violation, or the violation is of the ring itself: then it is broken, says so, and refuses work until `reset`. It
/// is never wedged.
///
/// A ring belongs to one thread, makes no system call, and allocates nothing once active. The driver's memory outlives it.
public protocol DeviceRing: ~Copyable, Sendable {
  /// The format.
  static var format: RingFormat { get }

  /// Checks the configuration and makes the ring; see `DeviceRingConfiguration.activate`.
  ///
  /// - Throws: a rule of configuration.
  init(activating configuration: consuming DeviceRingConfiguration<Self>) throws(RingError)

  /// Number of descriptors.
  var size: Int { get }
  /// What broke the ring, or nil while it works.
  var failure: RingError? { get }
  /// Chains that broke a rule, since the start.
  var malformedChains: UInt64 { get }
  /// Chains taken and not returned yet.
  var outstanding: Int { get }
  /// Chains taken since the start, less those that were put back, from some number on.
  var taken: UInt32 { get }
  /// Where the next available chain is looked for, as GET_VRING_BASE answers it: an index, or of a packed ring a place with the
  /// wrap counter in bit 15.
  var nextAvailIndex: UInt16 { get }

  // MARK: Taking

  /// Begins a batch: whether there is a chain to take. None in a ring that is broken; `failure` says by what.
  ///
  /// The segments of earlier batches are gone.
  @discardableResult mutating func refresh() -> Bool

  /// Whether this batch has chains that were not taken.
  var hasMore: Bool { get }

  /// Whether the last `take` has left a chain because this batch has no room for its segments.
  var lacksRoom: Bool { get }

  /// How many chains this batch has that were not taken, at most `limit`; of a packed ring the descriptors are counted.
  func available(upTo limit: Int) -> Int

  /// The next chain of this batch that breaks no rule, or nil at its end; `refresh` starts another.
  ///
  /// Those before it that broke one are returned and counted, as `next` does it: in a hot loop nothing throws. They belong to the batch
  /// too, which ends however quickly the driver makes others.
  mutating func take(in memory: borrowing GuestMemory) -> DescriptorChain?

  /// The next chain of this batch, or nil at its end.
  ///
  /// Throws the rule that a chain broke. Unless the ring is then broken, that chain has been returned with a length of 0, to be
  /// published with the others, and the next call goes on with the chain after it.
  mutating func next(in memory: borrowing GuestMemory) throws(RingError) -> DescriptorChain?

  /// Puts a chain back as if it had not been taken: a frame did not fit, or there is no more room.
  ///
  /// Chains of this batch are put back in reverse: those taken after it have been put back, none of them was returned, and none was
  /// malformed.
  ///
  /// - Throws: `.putBack` when it is not the last. That it was returned itself is not always known: the ring does not watch its owner.
  mutating func putBack(_ chain: DescriptorChain) throws(RingError)

  /// Takes pairs of chains, one buffer to read from this ring and one buffer to write from `target`, gives each pair to `body`,
  /// and returns both: the first with a length of 0, the other with what `body` says was written.
  ///
  /// Either buffer may be empty: `body` looks at the lengths anyway. Both rings have begun a batch; at most `max` pairs are
  /// taken. It ends before the first pair that is not of this simple kind, or that `body` answers with nil: those chains are as if
  /// nobody had looked, for `take`. One loop over both rings keeps the indices of a burst in registers. The caller then
  /// publishes.
  mutating func relay(
    to target: inout Self, max: Int, in memory: borrowing GuestMemory,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int

  // MARK: Returning

  /// Returns a chain; the driver sees it after `publishUsed`.
  ///
  /// `written` is what the device wrote, no more (VIRTIO 1.4 §2.7.8.1); 0 for a chain that was only read. With IN_ORDER chains
  /// are returned in the order in which they were taken, and those that were only read become one batch. Each chain is returned
  /// once: the ring does not watch its owner.
  mutating func pushUsed(_ chain: DescriptorChain, written: UInt32)

  /// Shows the driver everything returned since the last time, at once: the buffers of one merged frame are pushed, then
  /// published once.
  mutating func publishUsed()

  /// Breaks the ring: nothing more is taken. Returns the first error that broke it.
  ///
  /// Chains that are outstanding can still be returned and published.
  @discardableResult mutating func fail(_ error: RingError) -> RingError

  // MARK: Notifications

  /// True when the driver wants to be told of what was published since this was last asked.
  ///
  /// Ask once after `publishUsed`.
  mutating func needsCall() -> Bool

  /// Asks for a kick at the next available chain, and looks again: true when there is one already.
  ///
  /// True means that a kick may not come: serve what is there, then arm again.
  mutating func armKick() -> Bool

  /// Asks for no kicks. A hint: one may still come.
  mutating func disarmKick()

  // MARK: The end

  /// Starts the ring anew, after the driver has laid its areas anew. What was outstanding is forgotten. A start index that the
  /// ring cannot have is its first.
  mutating func reset(startIndex: UInt16)

  #if Testing
  /// What tells the ring from others, to whoever maps its driver area.
  var identity: UInt { get }
  #endif
}

extension DeviceRing where Self: ~Copyable {
  /// What a ring of this format is made of.
  public typealias Configuration = DeviceRingConfiguration<Self>

  /// True once the ring itself was violated, or stopped: it refuses work until `reset`.
  @inlinable public var isBroken: Bool { failure != nil }

  /// As `refresh`; throws what broke the ring.
  public mutating func begin() throws(RingError) -> Bool {
    let isMore = refresh()
    if let failure { throw failure }
    return isMore
  }

  /// The slow path of `take`: whatever `next` takes, without what it throws.
  @usableFromInline
  @inline(never)
  mutating func takeOther(in memory: borrowing GuestMemory) -> DescriptorChain? {
    // Ends with the batch: of a split ring what `refresh` saw, of a packed one what there is room for.
    while true {
      do throws(RingError) { return try next(in: memory) } catch { if failure != nil { return nil } }
    }
  }

  /// Starts the ring anew at its first index.
  public mutating func reset() { reset(startIndex: Self.format.firstIndex) }
}
