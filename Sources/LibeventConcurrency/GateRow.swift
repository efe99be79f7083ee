/// Gates of one loop by number, for tasks that wait for one thing each, once.
///
/// Whoever is to wait takes a place and says where that will be seen; whoever sees it opens the place, be it before the task has come
/// to it or after. Who passes puts it back, there on the loop: a task may go on elsewhere afterwards, where the row must not be touched.
/// A wait costs no object: see `Gate`, of which this is a row with one executor. It is touched on its loop only.
@safe public actor GateRow: SerialExecutor {
  // Proof: the pointee is touched on the loop's thread only; it lives as long as the row, which whoever waits in it holds.
  // Why the loop may run a job that was left to the row: as in `Gate`.
  @usableFromInline nonisolated(unsafe) let row: UnsafeMutablePointer<Row>

  /// What a place holds: one of these, or the job that is parked there.
  @usableFromInline static var closed: UInt { 0 }
  @usableFromInline static var opened: UInt { 1 }
  @usableFromInline static var failed: UInt { 2 }

  @safe @frozen @usableFromInline struct Place {
    @usableFromInline var word: UInt
    /// The next idle one, while this one is idle.
    @usableFromInline var next: UInt32
  }

  @safe @frozen @usableFromInline struct Row {
    @usableFromInline var places = UnsafeMutablePointer<Place>.allocate(capacity: 0)
    /// One more than there are: none is number 0.
    @usableFromInline var count = 0
    /// The first idle place; 0 when there is none.
    @usableFromInline var idle: UInt32 = 0
    /// Where the next who enters is parked.
    @usableFromInline var entrance: UInt32 = 0

    init() {}
  }

  /// A row without places, which are made as they are taken.
  public init() {
    unsafe row = .allocate(capacity: 1)
    unsafe row.initialize(to: Row())
  }

  deinit {
    unsafe row.pointee.places.deallocate()
    unsafe row.deallocate()
  }

  /// The row is its own executor.
  public nonisolated var unownedExecutor: UnownedSerialExecutor {
    unsafe UnownedSerialExecutor(ordinary: self)
  }

  /// Suspends until the place that was approached is open: true, and the place is idle again. False when it was opened by ``fail(_:)``:
  /// whoever knows why puts it back.
  public func pass(_ place: UInt32) -> Bool {
    guard isOpen(place) else { return false }
    putBack(place)
    return true
  }

  /// Parks the job of a task that enters, unless its place is open.
  public nonisolated func enqueue(_ job: consuming ExecutorJob) {
    let address = JobLinks.address(of: UnownedJob(job))
    let place = unsafe Int(row.pointee.entrance)
    unsafe row.pointee.entrance = 0
    guard place > 0, unsafe row.pointee.places[place].word == Self.closed else { return letGo(address) }
    unsafe row.pointee.places[place].word = address
  }

  @usableFromInline nonisolated func letGo(_ job: UInt) {
    if !LoopCore.letGo(job) { unsafe JobLinks.job(at: job).runSynchronously(on: unownedExecutor) }
  }
}

// What a send does with its place. In an extension, or these would be called through the class.
extension GateRow {
  /// Takes an idle place, from 1, which is closed. On the loop.
  @inlinable public nonisolated func take() -> UInt32 {
    if unsafe row.pointee.idle == 0 { grow() }
    let place = unsafe row.pointee.idle
    let pointer = unsafe row.pointee.places + Int(place)
    unsafe row.pointee.idle = pointer.pointee.next
    unsafe pointer.pointee.word = Self.closed
    return place
  }

  @usableFromInline @inline(never) nonisolated func grow() {
    let old = unsafe row.pointee.count
    let count = max(64, old * 2)
    let places = UnsafeMutablePointer<Place>.allocate(capacity: count)
    unsafe places.moveInitialize(from: row.pointee.places, count: old)
    for place in old..<count {
      unsafe (places + place).initialize(to: Place(word: Self.closed, next: UInt32(place + 1)))
    }
    // The last one is followed by none, and number 0 is nobody's.
    unsafe places[count - 1].next = 0
    unsafe row.pointee.places.deallocate()
    unsafe row.pointee.places = places
    unsafe row.pointee.count = count
    unsafe row.pointee.idle = UInt32(max(old, 1))
  }

  /// The place may be taken again; nobody waits at it. On the loop.
  @inlinable public nonisolated func putBack(_ place: UInt32) {
    unsafe row.pointee.places[Int(place)].next = row.pointee.idle
    unsafe row.pointee.idle = place
  }

  /// True when the place has been opened since it was taken. On the loop.
  @inlinable public nonisolated func isOpen(_ place: UInt32) -> Bool {
    unsafe row.pointee.places[Int(place)].word == Self.opened
  }

  /// Opens a place: who waits at it is due on its loop when this returns. What was never a place is none. On the loop.
  @inlinable public nonisolated func open(_ place: UInt32) { open(place, as: Self.opened) }

  /// Opens a place for somebody who waits for what is not going to happen. On the loop.
  public nonisolated func fail(_ place: UInt32) { open(place, as: Self.failed) }

  @inlinable nonisolated func open(_ place: UInt32, as word: UInt) {
    guard place > 0, unsafe Int(place) < row.pointee.count else { return }
    let pointer = unsafe row.pointee.places + Int(place)
    let job = unsafe pointer.pointee.word
    unsafe pointer.pointee.word = word
    if job > Self.failed { letGo(job) }
  }

  /// The task that calls ``pass(_:)`` next, before it does anything else, waits at this place. On the loop.
  @inlinable public nonisolated func approach(_ place: UInt32) { unsafe row.pointee.entrance = place }
}
