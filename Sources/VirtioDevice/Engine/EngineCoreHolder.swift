internal import LibeventConcurrency
internal import Virtio

/// What an engine does with its rings, whatever their format; a turn goes past it, by the hook. On the loop.
protocol EngineWork: AnyObject {
  /// The hook that takes the turns, while nobody has freed this.
  var hook: TurnHook { get }
  var isEnabled: Bool { get set }
  var filter: ReceiveFilter? { get set }
  var statistics: QueuePairStatistics { get }
  var failures: (receive: RingError?, transmit: RingError?) { get }
  var malformedChains: UInt64 { get }

  /// Starts the port.
  func start(_ bell: ServiceBell) throws(BackendError)
  /// Tells the port what `isEnabled` is.
  func tellEnabled()
  /// Closes the port; where the rings stood.
  func close() -> QueuePairEngine.Bases
  /// The hook is gone: so is the core.
  func free()
}

/// What an engine is made of beside rings.
@safe struct EngineParts {
  let requests: UnsafeMutablePointer<EngineRequests>
  let port: any BackendPort
  let receiveLine: any InterruptLine
  let transmitLine: any InterruptLine
  let budget: Int
  let ledger: PairLedger
  let onEvent: (PortEvent) -> Void
  let onFailure: (QueuePairEngine.Failure) -> Void
}

/// Holds what serves the rings of one format, where turns find it.
@safe final class EngineCoreHolder<Ring: ServedRing & ~Copyable>: EngineWork {
  // Proof: touched on the loop only. The hook that has this pointer as its context is removed before it is freed.
  private let core: UnsafeMutablePointer<EngineCore<Ring>>
  /// What the rings' reference leads to.
  private var box: FilterBox?

  /// Checks and activates both rings.
  init(
    _ receive: RingAreas, _ transmit: RingAreas, _ memory: consuming GuestMemory, _ format: FrameFormat,
    _ parts: EngineParts
  ) throws(RingError) {
    let rings = EngineRings(
      receive: try Self.ring(receive, format), transmit: try Self.ring(transmit, format), memory: memory,
      format: format)
    unsafe core = .allocate(capacity: 1)
    unsafe core.initialize(
      to: EngineCore(
        rings: rings, requests: parts.requests, port: parts.port, receiveLine: parts.receiveLine,
        transmitLine: parts.transmitLine, budget: parts.budget, ledger: parts.ledger, onEvent: parts.onEvent,
        onFailure: parts.onFailure))
  }

  private static func ring(_ areas: RingAreas, _ format: FrameFormat) throws(RingError) -> Ring {
    var configuration = Ring.Configuration(areas)
    configuration.eventIndex = format.features.contains(.eventIndex)
    configuration.indirect = format.features.contains(.indirectDesc)
    configuration.inOrder = format.features.contains(.inOrder)
    // Room for a burst of chains of a few buffers each.
    configuration.segmentCapacity = 2 * areas.size
    return try configuration.activate()
  }

  func free() {
    unsafe core.pointee.end()
    unsafe core.deinitialize(count: 1)
    unsafe core.deallocate()
  }

  var hook: TurnHook {
    unsafe TurnHook(stage: .device, context: UnsafeMutableRawPointer(core), begin: { _ in }, end: Ring.turn)
  }

  var isEnabled: Bool {
    get { unsafe core.pointee.isEnabled }
    set { unsafe core.pointee.isEnabled = newValue }
  }

  var filter: ReceiveFilter? {
    get { box?.filter }
    set {
      let new = newValue.map { FilterBox($0) }
      unsafe core.pointee.rings.filter = newValue?.passesAll == false ? new.map { unsafe .passUnretained($0) } : nil
      // The rings do not look at the old one any more.
      box = new
      if let newValue { unsafe core.pointee.port.setReceiveFilter(newValue) }
    }
  }

  var statistics: QueuePairStatistics { unsafe core.pointee.rings.statistics }
  var failures: (receive: RingError?, transmit: RingError?) {
    unsafe (core.pointee.rings.receive.failure, core.pointee.rings.transmit.failure)
  }
  var malformedChains: UInt64 {
    unsafe core.pointee.rings.receive.malformedChains &+ core.pointee.rings.transmit.malformedChains
  }

  func start(_ bell: ServiceBell) throws(BackendError) { try unsafe core.pointee.port.start(bell) }
  func tellEnabled() { unsafe core.pointee.port.setEnabled(core.pointee.isEnabled) }

  func close() -> QueuePairEngine.Bases {
    unsafe EngineCore.close(core)
    return unsafe QueuePairEngine.Bases(
      receive: core.pointee.rings.receive.nextAvailIndex, transmit: core.pointee.rings.transmit.nextAvailIndex)
  }
}
