/// Gates of one loop by number, for tasks that wait for one thing each, once.
///
/// Whoever is to wait takes a place and says where that will be seen; whoever sees it opens the place, be it before the task has come
/// to it or after. A place that was opened stays open until it is put back. A wait costs no object: see ``Gate``, of which this is a
/// row with one executor. It is touched on its loop only.
@safe public actor GateRow: SerialExecutor {
  // Proof: the pointee is touched on the loop's thread only; it lives as long as the row, which whoever waits in it holds.
  // Why the loop may run a job that was left to the row: as in `Gate`.
  nonisolated(unsafe) private let row: UnsafeMutablePointer<Row>

  /// What a place holds: one of these, or the job that is parked there.
  private static let closed: UInt = 0
  private static let opened: UInt = 1

  @safe private struct Place {
    var word = GateRow.closed
    /// The next idle one, while this one is idle.
    var next: UInt32
  }

  @safe private struct Row {
    var places = UnsafeMutablePointer<Place>.allocate(capacity: 0)
    /// One more than there are: none is number 0.
    var count = 0
    /// The first idle place; 0 when there is none.
    var idle: UInt32 = 0
    /// Where the next who enters is parked.
    var entrance: UInt32 = 0
    var passes: UInt64 = 0
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

  /// Takes an idle place, from 1, which is closed. On the loop.
  public nonisolated func take() -> UInt32 {
    if unsafe row.pointee.idle == 0 { grow() }
    let place = unsafe row.pointee.idle
    let pointer = unsafe row.pointee.places + Int(place)
    unsafe row.pointee.idle = pointer.pointee.next
    unsafe pointer.pointee.word = Self.closed
    return place
  }

  @inline(never) private nonisolated func grow() {
    let old = unsafe row.pointee.count
    let count = max(64, old * 2)
    let places = UnsafeMutablePointer<Place>.allocate(capacity: count)
    unsafe places.moveInitialize(from: row.pointee.places, count: old)
    for place in old..<count { unsafe (places + place).initialize(to: Place(next: UInt32(place + 1))) }
    // The last one is followed by none, and number 0 is nobody's.
    unsafe places[count - 1].next = 0
    unsafe row.pointee.places.deallocate()
    unsafe row.pointee.places = places
    unsafe row.pointee.count = count
    unsafe row.pointee.idle = UInt32(max(old, 1))
  }

  /// The place may be taken again; nobody waits at it. On the loop.
  public nonisolated func putBack(_ place: UInt32) {
    unsafe row.pointee.places[Int(place)].next = row.pointee.idle
    unsafe row.pointee.idle = place
  }

  /// True when the place has been opened since it was taken. On the loop.
  public nonisolated func isOpen(_ place: UInt32) -> Bool {
    unsafe row.pointee.places[Int(place)].word == Self.opened
  }

  /// Opens a place: who waits at it is due on its loop when this returns. What was never a place is none. On the loop.
  public nonisolated func open(_ place: UInt32) {
    guard place > 0, unsafe Int(place) < row.pointee.count else { return }
    let pointer = unsafe row.pointee.places + Int(place)
    let job = unsafe pointer.pointee.word
    unsafe pointer.pointee.word = Self.opened
    if job > Self.opened { letGo(job) }
  }

  /// The task that calls ``pass()`` next, before it does anything else, waits at this place. On the loop.
  public nonisolated func approach(_ place: UInt32) { unsafe row.pointee.entrance = place }

  /// Suspends until the place that was approached is open.
  public func pass() {
    // A store that the optimiser must keep: without it the hop to this row, which is the whole point, would be dead.
    unsafe row.pointee.passes &+= 1
  }

  /// Parks the job of a task that enters, unless its place is open.
  public nonisolated func enqueue(_ job: consuming ExecutorJob) {
    let address = JobLinks.address(of: UnownedJob(job))
    let place = unsafe Int(row.pointee.entrance)
    unsafe row.pointee.entrance = 0
    guard place > 0, unsafe row.pointee.places[place].word == Self.closed else { return letGo(address) }
    unsafe row.pointee.places[place].word = address
  }

  private nonisolated func letGo(_ job: UInt) {
    if !LoopCore.letGo(job) { unsafe JobLinks.job(at: job).runSynchronously(on: unownedExecutor) }
  }
}
