internal import LibeventConcurrency
internal import Netdev
internal import Synchronization

/// What the driver of one queue pair has been given and what it has given back: each buffer is in one place.
///
/// Written on the pair's loop; read by the check from anywhere. A hand-over that cannot be is reported and goes no further,
/// so that a broken driver does not break the test with it.
final class SlotLedger: QueueSignalWatcher, Sendable {
  /// One frame that the driver has: how often, and what its buffer looked like.
  private struct Flight {
    var count = 0
    var digest: UInt64
  }

  private struct State {
    var inFlight: [UInt64: Flight] = [:]
    var inFlightCount = 0
    /// Frames in flight that take more than one place in a ring, or may.
    var unusual = 0
    var posted: Set<UInt32> = []
    var submitted = 0
    var capacity = 0
    /// Times that the queue has looked for releases: at least once a turn.
    var looks = 0
    /// The driver has been asked for interrupts and has said that there is nothing to take.
    var isArmed = false
    var isDrained = false
    var isShutDown = false
  }

  let slots: SlotTableReference
  private let index: Int
  private let loop: LoopExecutor
  private let log: AuditLog
  private let state = Mutex(State())

  /// The slot table, for digests.
  struct SlotTableReference: @unchecked Sendable {
    // Proof of Sendable: used on the queue's loop only, for slots that are on their way to or from its driver.
    let table: SlotTable
  }

  init(index: Int, loop: LoopExecutor, slots: SlotTable, log: AuditLog) {
    self.index = index
    self.loop = loop
    self.slots = SlotTableReference(table: slots)
    self.log = log
  }

  func report(_ expected: String, _ seen: String) { log.report(expected, "\(seen), on queue pair \(index)") }

  // MARK: Counts

  /// Frames that the driver says its ring holds.
  var capacity: Int { state.withLock { $0.capacity } }
  func noteCapacity(_ capacity: Int) { state.withLock { $0.capacity = capacity } }

  /// Frames that the driver has.
  var inFlight: Int { state.withLock { $0.inFlightCount } }
  /// True when each frame that the driver has takes one place in a ring.
  var isPlain: Bool { state.withLock { $0.unusual == 0 } }
  /// Empty buffers that the driver has.
  var posted: Int { state.withLock { $0.posted.count } }
  /// Frames that the driver has taken so far.
  var submitted: Int { state.withLock { $0.submitted } }

  // MARK: Sleep

  func noteLook() { state.withLock { $0.looks += 1 } }
  func noteArmed(_ isArmed: Bool) { state.withLock { $0.isArmed = isArmed } }

  /// What stays as it is while the queue's loop sleeps: nil when it is not about to.
  var looksWhenArmed: Int? { state.withLock { $0.isArmed ? $0.looks : nil } }

  // MARK: Transmission

  /// What of a frame's buffer must stay as it is while the driver has it: the frame.
  func digest(_ entry: FrameEntry) -> UInt64 {
    let table = slots.table
    return unsafe digest(entry, from: table.start(of: entry.slot), count: table.length(of: entry.slot))
  }

  /// What of it must stay as it is when a frame is published that has no place for a header before it: all of it. Another flight may
  /// have one there.
  func wholeDigest(_ entry: FrameEntry) -> UInt64 {
    unsafe digest(entry, from: slots.table.base(of: entry.slot), count: slots.table.slotSize)
  }

  private func digest(_ entry: FrameEntry, from start: UnsafeMutableRawPointer, count: Int) -> UInt64 {
    guard slots.table.segments(of: entry.slot) == 1 else { return 0 }
    // FNV-1a, eight bytes at a time.
    var digest: UInt64 = 0xcbf2_9ce4_8422_2325
    var position = 0
    while position + 8 <= count {
      digest = unsafe (digest ^ start.loadUnaligned(fromByteOffset: position, as: UInt64.self)) &* 0x100_0000_01b3
      position += 8
    }
    while position < count {
      digest = unsafe (digest ^ UInt64(start.load(fromByteOffset: position, as: UInt8.self))) &* 0x100_0000_01b3
      position += 1
    }
    return digest
  }

  func submit(_ entry: FrameEntry, digest: UInt64) {
    state.withLock { state in
      state.inFlight[entry.rawValue, default: Flight(digest: digest)].count += 1
      state.inFlightCount += 1
      state.submitted += 1
      if !entry.isPlain { state.unusual += 1 }
    }
  }

  /// The driver is done with a frame; false when it had none such.
  func release(_ entry: FrameEntry, how: String) -> Bool {
    let flight = state.withLock { state -> Flight? in
      guard var flight = state.inFlight[entry.rawValue] else { return nil }
      flight.count -= 1
      state.inFlight[entry.rawValue] = flight.count == 0 ? nil : flight
      state.inFlightCount -= 1
      if !entry.isPlain { state.unusual -= 1 }
      return flight
    }
    guard let flight else {
      report("a frame is given back once, by whoever has it", "\(how) of slot \(entry.slot), which is not in flight")
      return false
    }
    if digest(entry) != flight.digest {
      report(
        "transmitting changes no byte of a frame", "slot \(entry.slot) was changed between submission and release")
    }
    return true
  }

  // MARK: Reception

  func post(_ slot: UInt32) { state.withLock { _ = $0.posted.insert(slot) } }

  /// The driver hands over the buffers of a frame, or an empty one; false when it had one of them not.
  func takeBack(_ slot: UInt32, how: String) -> Bool {
    let table = slots.table
    var slot = slot
    var left = max(1, table.segments(of: slot))
    while true {
      guard state.withLock({ $0.posted.remove(slot) }) != nil else {
        report("a buffer is handed over once, by whoever was given it", "\(how) of slot \(slot), which was not posted")
        return false
      }
      left -= 1
      guard left > 0 else { return true }
      slot = table.next(after: slot)
    }
  }

  // MARK: The end

  /// Nothing may be left with the driver.
  func noteDrained() {
    let (frames, buffers) = state.withLock { state in
      state.isDrained = true
      return (state.inFlightCount, state.posted.count)
    }
    guard frames > 0 || buffers > 0 else { return }
    report("drain gives back all that the driver has", "it kept \(frames) frames and \(buffers) empty buffers")
  }

  var isDrained: Bool { state.withLock { $0.isDrained } }

  func noteShutDown() { state.withLock { $0.isShutDown = true } }

  // MARK: Signals

  private func noteSignal(_ what: String) {
    if state.withLock({ $0.isShutDown }) { report("a driver that is shut down is silent", "\(what) after shutDown") }
    if !loop.isOnLoop { report("a driver calls its queue on the queue's loop", "\(what) on another thread") }
  }

  func willInterrupt() {
    noteSignal("an interrupt")
    noteArmed(false)
  }

  func willFail(_ error: NetworkDeviceError) {
    noteSignal("a failure")
    log.noteBreakage(error)
  }

  func willFail(_ entry: FrameEntry, _ error: NetworkDeviceError) {
    noteSignal("a failed frame")
    _ = release(entry, how: "failing")
  }

  func willGiveBack(_ slot: UInt32) {
    noteSignal("a buffer given back")
    _ = takeBack(slot, how: "giving back")
  }
}

/// What was found wrong at the seam in a check; from any thread.
final class AuditLog: Sendable {
  struct Finding: Sendable {
    var expected: String
    var seen: String
  }

  private struct State {
    var finding: Finding?
    var breakage: NetworkDeviceError?
    var expectsBreakage = false
  }

  private let state = Mutex(State())

  /// Keeps the first finding: what follows may come of it.
  func report(_ expected: String, _ seen: String) {
    state.withLock { if $0.finding == nil { $0.finding = Finding(expected: expected, seen: seen) } }
  }

  func noteBreakage(_ error: NetworkDeviceError) {
    state.withLock { if $0.breakage == nil { $0.breakage = error } }
  }

  /// The check breaks the queue itself.
  func expectBreakage() { state.withLock { $0.expectsBreakage = true } }

  /// The first thing that is wrong.
  var finding: Finding? {
    state.withLock { state in
      if let finding = state.finding { return finding }
      guard let breakage = state.breakage, !state.expectsBreakage else { return nil }
      return Finding(expected: "the queue works", seen: "the driver broke it: \(breakage)")
    }
  }
}
