internal import LibeventConcurrency
internal import Netdev
internal import Synchronization

/// A driver around the driver under test: it records what crosses the seam, both ways, and reports what cannot be.
final class AuditedDriver: NetworkDriver {
  private let inner: any NetworkDriver
  private let log: AuditLog
  private let interventions: Interventions
  private let made = Mutex<[SlotLedger]>([])

  init(_ inner: any NetworkDriver, log: AuditLog, interventions: Interventions) {
    self.inner = inner
    self.log = log
    self.interventions = interventions
  }

  /// One ledger a queue pair, in the order of the pairs.
  var ledgers: [SlotLedger] { made.withLock { $0 } }

  var recovery: RecoveryPauses? { inner.recovery }
  var deviceDrops: [DeviceDrops] { inner.deviceDrops }
  var peerStatistics: [PeerStatistics] { inner.peerStatistics }
  func attach(control: DeviceControl) { inner.attach(control: control) }
  func attend() async throws(NetworkDeviceError) { try await inner.attend() }
  func suspend() async { await inner.suspend() }
  func perform(_ command: ControlCommand) async throws(NetworkDeviceError) { try await inner.perform(command) }
  func recover() async throws(NetworkDeviceError) { try await inner.recover() }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    try await inner.start(request)
  }

  func attach(pool: PacketPool) async throws(NetworkDeviceError) { try await inner.attach(pool: pool) }

  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let ledger = SlotLedger(index: index, loop: loop, slots: slots, log: log)
    let queue = try inner.makeQueue(index: index, loop: loop, slots: slots, signal: signal.watched(by: ledger))
    ledger.noteCapacity(queue.transmitCapacity)
    made.withLock { $0.append(ledger) }
    return AuditedQueue(queue, slots: slots, ledger: ledger, log: log, interventions: interventions)
  }

  func activate() async throws(NetworkDeviceError) { try await inner.activate() }
  func reset(timeout: Duration) async throws(NetworkDeviceError) { try await inner.reset(timeout: timeout) }

  func shutDown() async {
    await inner.shutDown()
    for ledger in ledgers { ledger.noteShutDown() }
  }
}

/// One queue pair of it.
final class AuditedQueue: QueueDriver {
  private let inner: any QueueDriver
  private let slots: SlotTable
  private let ledger: SlotLedger
  private let log: AuditLog
  private let interventions: Interventions
  /// A posted buffer that the driver was not given.
  private var spare: UInt32?
  /// Entries that were altered and wait to be published, by what the queue calls them.
  private var altered: [UInt64: FrameEntry] = [:]

  init(_ inner: any QueueDriver, slots: SlotTable, ledger: SlotLedger, log: AuditLog, interventions: Interventions) {
    self.inner = inner
    self.slots = slots
    self.ledger = ledger
    self.log = log
    self.interventions = interventions
  }

  // MARK: Transmission

  var transmitCapacity: Int { inner.transmitCapacity }
  var isServedHere: Bool { inner.isServedHere }

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    if interventions.isJammed { return 0 }
    var offered: [FrameEntry] = []
    for position in 0..<entries.count { offered.append(alter(entries[position])) }
    // Those that may have a header before them go by themselves, and so do the others: what is before these is theirs who are in flight.
    var done = 0
    while done < offered.count {
      let isPlain = offered[done].isPlain
      let run = Array(offered[done...].prefix { $0.isPlain == isPlain })
      let count: Int
      do throws(NetworkDeviceError) {
        count = try transmit(run, isPlain: isPlain)
      } catch {
        // What concerns this frame alone is said when it is the first.
        if done > 0, error.code == .frameTooLong { return done }
        altered[entries[done].rawValue] = nil
        throw error
      }
      for position in done..<done + count { altered[entries[position].rawValue] = nil }
      done += count
      if count < run.count { break }
    }
    return done
  }

  private func transmit(_ offered: [FrameEntry], isPlain: Bool) throws(NetworkDeviceError) -> Int {
    let digests = offered.map { ledger.digest($0) }
    let whole = isPlain ? [] : offered.map { ledger.wholeDigest($0) }
    let holdsAll = isPlain && ledger.isPlain
    let room = inner.transmitCapacity - ledger.inFlight
    let count: Int
    do throws(NetworkDeviceError) {
      count = try inner.transmit(offered.span)
    } catch {
      noteRefusal(of: offered, error)
      throw error
    }
    guard (0...offered.count).contains(count) else {
      ledger.report("transmit takes 0 to all of the frames offered", "it took \(count) of \(offered.count)")
      return 0
    }
    if holdsAll, count < min(offered.count, room) {
      ledger.report(
        "the ring holds \(inner.transmitCapacity) frames that lie in one buffer each",
        "with room for \(room) it took \(count) of \(offered.count)")
    }
    for position in 0..<count {
      ledger.submit(offered[position], digest: digests[position])
      guard !isPlain, ledger.wholeDigest(offered[position]) != whole[position] else { continue }
      ledger.report(
        "transmitting changes no byte of a buffer that another flight has its header in",
        "slot \(offered[position].slot) was changed when it was published")
    }
    return count
  }

  /// A driver may refuse a frame for its length, and break its queue for anything else.
  private func noteRefusal(of offered: [FrameEntry], _ error: NetworkDeviceError) {
    guard error.code == .frameTooLong else { return log.noteBreakage(error) }
    guard let first = offered.first, altered.isEmpty else { return }
    ledger.report(
      "a frame of up to MTU + 14 bytes is taken", "\(slots.length(of: first.slot)) bytes were refused: \(error)")
  }

  private func alter(_ entry: FrameEntry) -> FrameEntry {
    if let known = altered[entry.rawValue] { return known }
    let slot = entry.slot
    let length = slots.length(of: slot)
    guard slots.segments(of: slot) == 1, let kind = interventions.takeAlteration(forLength: length) else {
      return entry
    }
    switch kind {
    case .lengthen(let longer): slots.setReceived(slot: slot, length: longer)
    case .split: split(slot, length)
    }
    // Such a frame is never a plain one.
    let made = FrameEntry(rawValue: entry.rawValue | 1 << 63)
    altered[entry.rawValue] = made
    return made
  }

  private func split(_ slot: UInt32, _ length: Int) {
    guard let spare = spare.take() else { return }
    interventions.noteSpare(false)
    let first = length / 2
    unsafe slots.base(of: spare).advanced(by: slots.headroom)
      .copyMemory(from: slots.start(of: slot).advanced(by: first), byteCount: length - first)
    // What moved away must not be found where it was.
    unsafe slots.start(of: slot).advanced(by: first).initializeMemory(
      as: UInt8.self, repeating: 0xee, count: length - first)
    slots.setReceived(slot: slot, length: first)
    slots.append(slot: spare, offset: slots.headroom, length: length - first, to: slot, last: slot)
  }

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    ledger.noteLook()
    let count: Int
    do throws(NetworkDeviceError) {
      count = try inner.takeReleased(into: &entries)
    } catch {
      log.noteBreakage(error)
      throw error
    }
    return kept(count, of: &entries, "takeReleased") { ledger.release($0, how: "the release") }
  }

  /// The hand-overs that can be; the others are reported and go no further.
  private func kept(
    _ count: Int, of entries: inout MutableSpan<FrameEntry>, _ operation: String, _ isRight: (FrameEntry) -> Bool
  ) -> Int {
    guard (0...entries.count).contains(count) else {
      ledger.report("\(operation) fills what it is given", "it says \(count) of \(entries.count)")
      return 0
    }
    var kept = 0
    for position in 0..<count where isRight(entries[position]) {
      entries[kept] = entries[position]
      kept += 1
    }
    return kept
  }

  // MARK: Reception

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    if let breakage = interventions.takeBreakage() { throw breakage }
    let count: Int
    do throws(NetworkDeviceError) {
      count = try inner.takeReceived(into: &entries)
    } catch {
      log.noteBreakage(error)
      throw error
    }
    return kept(count, of: &entries, "takeReceived") { entry in
      guard ledger.takeBack(entry.slot, how: "the reception") else { return false }
      let length = slots.length(of: entry.slot)
      guard length <= slots.slotSize - slots.offset(of: entry.slot) else {
        ledger.report("a received frame lies in its buffer", "\(length) bytes in a buffer of \(slots.slotSize)")
        return false
      }
      return true
    }
  }

  var receiveRoom: Int {
    let room = inner.receiveRoom
    guard room < 0 else { return room }
    ledger.report("receiveRoom counts buffers", "\(room)")
    return 0
  }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    var offered: [UInt32] = []
    for position in 0..<slots.count { offered.append(slots[position]) }
    var withheld = 0
    if interventions.keepsSpare, spare == nil, let first = offered.first {
      spare = first
      withheld = 1
      interventions.noteSpare(true)
    }
    let given = Array(offered.dropFirst(withheld))
    let room = inner.receiveRoom
    let count = try inner.post(given.span)
    guard (0...given.count).contains(count) else {
      ledger.report("post takes 0 to all of the buffers offered", "it took \(count) of \(given.count)")
      return withheld
    }
    if count < min(given.count, room) {
      ledger.report("post takes the buffers that receiveRoom asks for", "it wanted \(room) and took \(count)")
    }
    for slot in given.prefix(count) { ledger.post(slot) }
    return count + withheld
  }

  // MARK: Notifications and the end

  func ring() { inner.ring() }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    if let body = interventions.takeBeforeArm() {
      // What was asked for earlier may still stand, and would hide that this arming asks for nothing.
      inner.disarm()
      body()
    }
    let isPending = inner.arm(received: received, released: released)
    ledger.noteArmed(!isPending)
    return isPending
  }

  func disarm() {
    ledger.noteArmed(false)
    inner.disarm()
  }

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    inner.drain(
      transmitted: { entry in if ledger.release(entry, how: "the draining") { transmitted(entry) } },
      posted: { slot in if ledger.takeBack(slot, how: "the draining") { posted(slot) } })
    if let spare = spare.take() { posted(spare) }
    ledger.noteDrained()
  }

  var statistics: QueueDriverStatistics { inner.statistics }
}
