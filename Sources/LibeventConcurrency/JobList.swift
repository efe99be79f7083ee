/// Jobs waiting for their turn, linked through words that the Swift runtime reserves for schedulers.
///
/// A job is a heap object whose header (two words) is followed by two words "reserved for the use of the scheduler"
/// (swift/ABI/Task.h, `Job::SchedulerPrivate`): the first links, the second tags a job that came through the task
/// executor. A job is on one list at a time, so linking allocates nothing.
@safe struct JobLinks {
  private static let linkOffset = 16
  private static let tagOffset = 24

  /// The address that stands for a job while it is on a list.
  static func address(of job: UnownedJob) -> UInt {
    // UnownedJob is one pointer, to the runtime's job.
    unsafe unsafeBitCast(job, to: UInt.self)
  }

  static func job(at address: UInt) -> UnownedJob {
    // Only addresses that `address(of:)` gave are on a list.
    unsafe unsafeBitCast(address, to: UnownedJob.self)
  }

  private static func word(_ address: UInt, _ offset: Int) -> UnsafeMutablePointer<UInt> {
    // Inside the job object, which lives until it has run.
    unsafe UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped
      .advanced(by: offset).assumingMemoryBound(to: UInt.self)
  }

  static func next(_ address: UInt) -> UInt { unsafe word(address, linkOffset).pointee }
  static func setNext(_ address: UInt, _ next: UInt) { unsafe word(address, linkOffset).pointee = next }
  static func tag(_ address: UInt) -> UInt { unsafe word(address, tagOffset).pointee }
  static func setTag(_ address: UInt, _ tag: UInt) { unsafe word(address, tagOffset).pointee = tag }
}

/// First in, first out; touched by one thread. `Models/Sources/LibeventConcurrency/StandIns.swift` has a stand-in of it and of `JobLinks`.
struct JobList {
  private var head: UInt = 0
  private var tail: UInt = 0

  var isEmpty: Bool { head == 0 }

  mutating func append(_ address: UInt) {
    JobLinks.setNext(address, 0)
    if tail == 0 { head = address } else { JobLinks.setNext(tail, address) }
    tail = address
  }

  mutating func popFirst() -> UInt? {
    guard head != 0 else { return nil }
    let first = head
    head = JobLinks.next(first)
    if head == 0 { tail = 0 }
    return first
  }
}
