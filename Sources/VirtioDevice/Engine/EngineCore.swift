internal import CNetdevSystem
internal import LibeventConcurrency
internal import Virtio

/// What is asked of an engine from outside its turns, whatever the format of its rings. Touched on the loop only.
@safe struct EngineRequests {
  /// A kick, the bell, or the start: there may be work.
  var pending = false
  /// Kicks, both rings.
  var kicks: UInt64 = 0
  /// Told by the port and not passed on yet.
  var events: [PortEvent] = []
}

/// The state of an engine and what one of its turns does. It lives behind one pointer, which is the hook's context, so that
/// a turn retains nothing and checks no exclusivity; it is touched on the loop only.
@safe struct EngineCore<Ring: ServedRing & ~Copyable>: ~Copyable {
  var rings: EngineRings<Ring>
  /// The engine's, which outlive this.
  let requests: UnsafeMutablePointer<EngineRequests>
  /// The last turn found work: look again without being asked.
  var isPolling = false
  var isEnabled = true
  /// Whether kicks of each ring are asked for. A new ring's memory says yes until it is told otherwise.
  private var receiveArmed = true
  private var transmitArmed = true
  private var receiveReported = false
  private var transmitReported = false
  let budget: Int
  let port: Port
  let receiveLine: any InterruptLine
  let transmitLine: any InterruptLine
  /// Unmanaged, so that a turn retains nothing: released by `end`.
  private let ledger: Unmanaged<PairLedger>
  let onEvent: (PortEvent) -> Void
  let onFailure: (QueuePairEngine.Failure) -> Void

  init(
    rings: consuming EngineRings<Ring>, requests: UnsafeMutablePointer<EngineRequests>, port: any BackendPort,
    receiveLine: any InterruptLine, transmitLine: any InterruptLine, budget: Int, ledger: PairLedger,
    onEvent: @escaping (PortEvent) -> Void, onFailure: @escaping (QueuePairEngine.Failure) -> Void
  ) {
    unsafe self.requests = requests
    ledger.beginEngine()
    unsafe self.ledger = .passRetained(ledger)
    self.onEvent = onEvent
    self.rings = rings
    self.port = Port(port)
    self.receiveLine = receiveLine
    self.transmitLine = transmitLine
    self.budget = budget
    self.onFailure = onFailure
  }

  /// Lets go of what the core retains by hand: a deinit of a generic type would be left out (see `ChainPlaces`). Once, before it is
  /// freed.
  func end() { unsafe ledger.release() }

  /// Tells whoever looks from elsewhere what has been done.
  mutating func writeLedger() {
    rings.statistics.kicks = unsafe requests.pointee.kicks
    unsafe ledger._withUnsafeGuaranteedRef { $0.write(rings.statistics) }
  }

  /// The hook's `end`. True asks for another turn without sleeping.
  ///
  /// `Models/Sources/Virtio/RingModels.swift` has a copy of the order in which it serves, publishes, interrupts and asks for kicks.
  static func turn(_ core: UnsafeMutablePointer<EngineCore>) -> Bool {
    let requests = unsafe core.pointee.requests
    guard unsafe requests.pointee.pending || core.pointee.isPolling else { return false }
    unsafe requests.pointee.pending = false
    unsafe core.pointee.suppressKicks()
    unsafe core.pointee.rings.statistics.services &+= 1
    let before = unsafe core.pointee.rings.progress
    var result: ServeResult
    if unsafe core.pointee.isEnabled {
      result = unsafe core.pointee.port.serve(&core.pointee.rings, budget: core.pointee.budget)
    } else {
      result = unsafe core.pointee.rings.discardTransmit(budget: core.pointee.budget) ? .moreWork : []
    }
    let after = unsafe core.pointee.rings.progress
    let isIdle = before == after && !result.contains(.moreWork)
    unsafe core.pointee.isPolling = isIdle ? core.pointee.askForKicks(result) : true
    unsafe core.pointee.rings.returnBuffers()
    // Before the driver learns of it: then it is counted.
    if before != after { unsafe core.pointee.writeLedger() }
    unsafe core.pointee.rings.receive.publishUsed()
    unsafe core.pointee.rings.transmit.publishUsed()
    if before != after { TurnHook.noteWork() }
    // The lines are called with no access to the core going on: a driver on the same loop may kick from inside.
    if after.receive != before.receive {
      let wanted = unsafe core.pointee.rings.receive.needsCall()
      unsafe core.pointee.countCall(wanted)
      #if Testing
      RingWatch.tell(.call(unsafe core.pointee.rings.receive.identity, rang: wanted))
      #endif
      if wanted { unsafe core.pointee.receiveLine.raise() }
    }
    if after.transmit != before.transmit {
      let wanted = unsafe core.pointee.rings.transmit.needsCall()
      unsafe core.pointee.countCall(wanted)
      #if Testing
      RingWatch.tell(.call(unsafe core.pointee.rings.transmit.identity, rang: wanted))
      #endif
      if wanted { unsafe core.pointee.transmitLine.raise() }
    }
    unsafe reportFailures(core)
    if unsafe core.pointee.rings.hasUnpublishedDrops || !requests.pointee.events.isEmpty { unsafe passOn(core) }
    return unsafe core.pointee.isPolling || requests.pointee.pending
  }

  private mutating func countCall(_ raised: Bool) {
    if raised { rings.statistics.calls &+= 1 } else { rings.statistics.suppressedCalls &+= 1 }
  }

  /// While the engine polls, a kick is a wasted doorbell.
  private mutating func suppressKicks() {
    if receiveArmed {
      rings.receive.disarmKick()
      receiveArmed = false
    }
    if transmitArmed {
      rings.transmit.disarmKick()
      transmitArmed = false
    }
  }

  /// Nothing was moved: asks for the kicks that would change that, and looks again. True when there is work already.
  ///
  /// Buffers that are in hand but not enough for a frame do not count as news, and the kick is asked for behind them: that
  /// is why this comes before they are put back.
  private mutating func askForKicks(_ result: ServeResult) -> Bool {
    var found = false
    if !result.contains(.transmitBlocked) {
      transmitArmed = true
      found = rings.transmit.armKick()
    }
    if result.contains(.needsReceiveBuffers) {
      receiveArmed = true
      if rings.receive.armKick() { found = true }
    }
    #if Testing
    if unsafe netdev_fault_is_planted("device-lost-recheck") { return false }
    #endif
    return found
  }

  /// The engine stops: what has been released to the driver is carried on or counted as dropped.
  static func close(_ core: UnsafeMutablePointer<EngineCore>) {
    unsafe core.pointee.port.dropWaiting(&core.pointee.rings)
    unsafe core.pointee.port.close()
    unsafe core.pointee.writeLedger()
    guard unsafe core.pointee.rings.hasUnpublishedDrops else { return }
    let firsts = unsafe core.pointee.publishDrops()
    let onEvent = unsafe core.pointee.onEvent
    for event in firsts { onEvent(event) }
  }

  /// Adds what was dropped to the ledger; the reasons that are new there.
  private mutating func publishDrops() -> [PortEvent] {
    let drops = rings.takeUnpublishedDrops()
    return unsafe ledger._withUnsafeGuaranteedRef { $0.add(drops) }.map { .firstDrop($0.0, $0.1) }
  }

  /// Publishes what was dropped and what the port told. With no access to the core going on: a transport may stop the engine
  /// from inside.
  @inline(never)
  private static func passOn(_ core: UnsafeMutablePointer<EngineCore>) {
    let requests = unsafe core.pointee.requests
    var events = unsafe requests.pointee.events
    unsafe requests.pointee.events = []
    if unsafe core.pointee.rings.hasUnpublishedDrops { events += unsafe core.pointee.publishDrops() }
    let onEvent = unsafe core.pointee.onEvent
    for event in events { onEvent(event) }
  }

  /// Calls `onFailure` once for each ring that the driver has broken.
  private static func reportFailures(_ core: UnsafeMutablePointer<EngineCore>) {
    if unsafe !core.pointee.receiveReported, let error = unsafe core.pointee.rings.receive.failure {
      unsafe core.pointee.receiveReported = true
      unsafe core.pointee.onFailure(QueuePairEngine.Failure(ring: .receive, error: error))
    }
    if unsafe !core.pointee.transmitReported, let error = unsafe core.pointee.rings.transmit.failure {
      unsafe core.pointee.transmitReported = true
      unsafe core.pointee.onFailure(QueuePairEngine.Failure(ring: .transmit, error: error))
    }
  }
}

/// The back-end's end of a pair. It cannot be copied, so that a turn borrows it where it is and retains nothing.
struct Port: ~Copyable {
  private let port: any BackendPort

  init(_ port: any BackendPort) { self.port = port }

  borrowing func start(_ bell: ServiceBell) throws(BackendError) { try port.start(bell) }
  borrowing func serve<Ring: ServedRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    Ring.serve(port, &rings, budget: budget)
  }
  borrowing func dropWaiting<Ring: ServedRing & ~Copyable>(_ rings: inout EngineRings<Ring>) {
    port.dropWaiting(&rings)
  }
  borrowing func setEnabled(_ enabled: Bool) { port.setEnabled(enabled) }
  borrowing func setReceiveFilter(_ filter: ReceiveFilter) { port.setReceiveFilter(filter) }
  borrowing func close() { port.close() }
}

/// A format of rings that engines serve: where what is generic is compiled for it.
protocol ServedRing: DeviceRing, ~Copyable {
  /// Has a port serve: one witness call a burst.
  static func serve(_ port: any BackendPort, _ rings: inout EngineRings<Self>, budget: Int) -> ServeResult
  /// `EngineCore.turn`, for a hook whose context is a core with such rings.
  static var turn: @convention(c) (UnsafeMutableRawPointer) -> Bool { get }
}

extension SplitDeviceRing: ServedRing {
  @inline(__always)
  static func serve(_ port: any BackendPort, _ rings: inout EngineRings<Self>, budget: Int) -> ServeResult {
    port.burst(&rings, budget: budget)
  }

  // The context that the engine gave.
  static var turn: @convention(c) (UnsafeMutableRawPointer) -> Bool {
    { unsafe EngineCore<SplitDeviceRing>.turn($0.assumingMemoryBound(to: EngineCore<SplitDeviceRing>.self)) }
  }
}

extension PackedDeviceRing: ServedRing {
  @inline(__always)
  static func serve(_ port: any BackendPort, _ rings: inout EngineRings<Self>, budget: Int) -> ServeResult {
    port.burst(&rings, budget: budget)
  }

  // The context that the engine gave.
  static var turn: @convention(c) (UnsafeMutableRawPointer) -> Bool {
    { unsafe EngineCore<PackedDeviceRing>.turn($0.assumingMemoryBound(to: EngineCore<PackedDeviceRing>.self)) }
  }
}

extension EngineRings where Ring: ~Copyable {
  /// How many chains have been returned on each ring, from some number on: what a burst has moved shows as a difference.
  var progress: (receive: UInt32, transmit: UInt32) {
    // Every chain taken is returned, put back, or in hand.
    (receive.taken &- UInt32(truncatingIfNeeded: handEnd - handStart), transmit.taken)
  }
}
