/// The driver side of a virtqueue, whatever its format: adds chains of buffers, publishes them, takes back what is used.
///
///     var configuration = try Ring.Configuration(size: 256, block: block)
///     configuration.eventIndex = features.contains(.eventIndex)
///     var ring = try configuration.activate()
///     _ = ring.add(address: iova, length: 1526, writable: true, token: slot)
///     ring.publish()
///     if ring.needsKick() { kick() }
///     while let used = try ring.nextUsed() { … }
///
/// The device is not trusted. Shared memory is only written here, except what the device says of used buffers and of its wish for
/// notifications; that is read once, copied, and checked against a private table. What fails a check breaks the ring: it throws,
/// refuses work from then on, and keeps every token for `drain` after a confirmed reset.
///
/// A ring belongs to one thread. It makes no system call and allocates nothing once active; the ring's memory is the caller's and
/// outlives it. Errors of the caller leave the ring as it was.
///
/// Logic over rings is generic and compiled for each format. What is called for each packet or each burst does not throw: the call
/// of a requirement that throws stays a call by the witness, and one with a closure as well costs more than that.
public protocol DriverRing: ~Copyable, Sendable {
  /// The format.
  static var format: RingFormat { get }

  /// Checks the configuration, clears the ring's memory, and makes the ring; see `DriverRingConfiguration.activate`.
  ///
  /// - Throws: a rule of configuration; nothing has then been written.
  init(activating configuration: consuming DriverRingConfiguration<Self>) throws(RingError)

  /// Number of descriptors.
  var size: Int { get }
  /// Descriptors that may be added; zero in a ring that is broken.
  var freeCount: Int { get }
  /// Chains that the device has and that have not been taken back.
  var inFlight: Int { get }
  /// Chains added and not published yet.
  var unpublished: Int { get }
  /// What broke the ring, or nil while it works.
  var failure: RingError? { get }
  /// Where the next chain goes, after the last published one: what NOTIFICATION_DATA puts in its upper half (VIRTIO 1.4 §2.9).
  var publishedIndex: UInt16 { get }
  /// Chains taken back since the ring was laid, from some number on: it moves when, and only when, something comes back.
  var returnedIndex: UInt32 { get }

  // MARK: Adding

  /// Adds one buffer as a chain of its own; false when the ring is full or broken.
  ///
  /// The buffer is the device's from the next `publish` until its token comes back.
  mutating func add(address: UInt64, length: UInt32, writable: Bool, token: UInt64) -> Bool

  /// Adds up to `count` buffers, each a chain of its own, and says how many there was room for.
  ///
  /// `buffer` is called once for each, from zero up, and ends the burst with nil: the indices of the whole burst stay in
  /// registers.
  mutating func add(count: Int, writable: Bool, _ buffer: (Int) -> RingBuffer?) -> Int

  /// Adds a chain: first what the device reads, then what it writes. False when there is no room, or the ring is broken.
  ///
  /// With indirect tables a chain of several buffers takes one descriptor of the ring.
  ///
  /// - Throws: `.chainEmpty`, `.chainTooLong` or `.chainTooLarge`, the caller's errors; the ring is then as it was.
  mutating func add(
    readable: Span<RingBuffer>, writable: Span<RingBuffer>, token: UInt64
  ) throws(RingError) -> Bool

  /// Makes everything added since the last time visible to the device, at once.
  mutating func publish()

  // MARK: Taking back

  /// Whether the device shows a used chain, or there is a reason to throw. One load, changes nothing.
  var hasUsed: Bool { get }

  /// Whether the device has used everything that was ever published, as far as one load says: it has nothing left. Taken back or
  /// not, and false before the first publication.
  var isUsedUp: Bool { get }

  /// Looks what the device has used, for `takeSingles`; false when the ring is broken, and `failure` says by what.
  mutating func refresh() -> Bool

  /// Takes back up to `max` used chains of one buffer that the last `refresh` saw, or that have come since, as long as they come,
  /// nothing is wrong and `body` says yes; says how many.
  ///
  /// `body` gets each one's position from zero up, its token and its length, and a no leaves it on the ring. What is left there,
  /// chains of several buffers and violations included, is for `nextUsed`.
  mutating func takeSingles(max: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool) -> Int

  /// Whether the last `takeSingles` has left something for `nextUsed` that it saw: a chain of several buffers, one that its
  /// `body` refused, or a violation.
  var hasOthers: Bool { get }

  /// The next chain that the device has used, or nil when there is none; throws what broke the ring.
  mutating func nextUsed() throws(RingError) -> UsedBuffer?

  /// Breaks the ring: nothing more is added, nothing more is taken back. Returns the first error that broke it.
  ///
  /// Drivers call it for what only they can see, an impossible `num_buffers` for example.
  @discardableResult mutating func fail(_ error: RingError) -> RingError

  // MARK: Notifications

  /// True when the device wants to be told of what was published since this was last asked.
  ///
  /// Ask once after `publish`, and kick when the answer is yes.
  mutating func needsKick() -> Bool

  /// True when something was published since ``needsKick()`` was asked last: its answer is then the device's wish.
  var hasUnannounced: Bool { get }

  /// Asks for an interrupt when `count` more chains have been used, at the latest, and looks again: true when there is work
  /// already.
  ///
  /// True means that an interrupt may not come: take back what is there, then arm again. `count` is cut to what is in flight, so
  /// that it is reached. Without EVENT_IDX the device interrupts for every chain, whatever `count` says.
  mutating func armInterrupt(after count: Int) -> Bool

  /// Asks for no interrupts. A hint: one may still come.
  mutating func disarmInterrupt()

  // MARK: The end

  /// Takes every token out of the ring, in no order, and says how many there were: once, after a confirmed reset.
  ///
  /// Before the reset is confirmed the device may still use the buffers (VIRTIO 1.4 §3.3.1). The ring then refuses work until
  /// `reset`.
  @discardableResult mutating func drain(_ body: (UInt64) -> Void) -> Int

  /// As `drain`, in the order of publication: what was submitted first comes first. For rings whose buffers the device reads;
  /// empty buffers that were added by the burst come in any order.
  ///
  /// Which chains are out, whose they are, and when each was published, the private table says: nothing that a device could have
  /// written decides about anything.
  @discardableResult mutating func drainInOrder(_ body: (UInt64) -> Void) -> Int

  /// Lays the ring anew, as `activate` does: after a confirmed reset, when `drain` has emptied it.
  ///
  /// - Throws: `.outstanding` while the ring still holds tokens; `.startIndex`.
  mutating func reset(startIndex: UInt16) throws(RingError)

  #if Testing
  /// What tells the ring from others, to whoever maps its driver area.
  var identity: UInt { get }
  #endif
}

extension DriverRing where Self: ~Copyable {
  /// What a ring of this format is made of.
  public typealias Configuration = DriverRingConfiguration<Self>

  /// True once a rule was broken or the ring was drained: it refuses work until `reset`.
  @inlinable public var isBroken: Bool { failure != nil }

  /// As `refresh`; throws what broke the ring.
  public mutating func look() throws(RingError) { if !refresh(), let failure { throw failure } }

  /// Asks for an interrupt when the next chain has been used; see `armInterrupt(after:)`.
  @inlinable
  public mutating func armInterrupt() -> Bool { armInterrupt(after: 1) }

  /// Asks for an interrupt when about three quarters of what is in flight have been used; otherwise as `armInterrupt`.
  ///
  /// For batches and pipelines only: what waits for a single chain arms for the next one, and a time bound stands behind.
  @inlinable
  public mutating func armInterruptDelayed() -> Bool { armInterrupt(after: inFlight - inFlight / 4) }

  /// Lays the ring anew at its first index.
  ///
  /// - Throws: `.outstanding` while the ring still holds tokens.
  public mutating func reset() throws(RingError) { try reset(startIndex: Self.format.firstIndex) }
}
