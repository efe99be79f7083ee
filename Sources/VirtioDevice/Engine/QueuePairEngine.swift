public import LibeventConcurrency
public import Virtio

/// Serves the two rings of one queue pair on one loop: the device side of virtio-net's data path.
///
/// The engine takes a turn after the jobs of each turn of its loop. When there is something to do, because the driver
/// kicked, because the back-end rang its bell, or because the last turn found work, it hands both rings to the back-end's
/// port for one burst, publishes what was used, and raises each ring's interrupt at most once and only if the driver wants
/// it. While bursts find work, kicks are suppressed and the engine polls from turn to turn, as NAPI does; the first empty
/// burst asks for kicks again and looks once more, and then the loop may sleep. An idle engine costs a flag's test a turn.
///
///     let engine = try QueuePairEngine(loop: loop, receive: rx, transmit: tx, memory: memory, format: format, …)
///     try engine.start()
///     engine.kickTransmit()              // from the driver on the same loop, or from an eventfd's source
///     let bases = engine.stop()          // after this nothing in the driver's memory is read or written
///
/// A driver that breaks the protocol breaks its ring and nothing else: the failure is reported once, the other ring goes on,
/// and so do other pairs. Not Sendable: made, used and released on its loop.
@safe public final class QueuePairEngine {
  /// Where the rings stood when the engine stopped: the next entry of each available ring, which is what a transport gives
  /// back to a driver that goes on later (GET_VRING_BASE).
  public struct Bases: Sendable, Hashable {
    /// Of the receive ring.
    public var receive: UInt16
    /// Of the transmit ring.
    public var transmit: UInt16
  }

  /// A ring that the driver broke.
  public struct Failure: Error, Sendable, Hashable, CustomStringConvertible {
    /// Which of the two rings.
    public enum Ring: Sendable, Hashable {
      /// The driver's receive ring.
      case receive
      /// The driver's transmit ring.
      case transmit
    }
    /// The ring that has stopped.
    public let ring: Ring
    /// The rule that the driver broke.
    public let error: RingError

    /// One line for a log.
    public var description: String { "\(ring) ring stopped: \(error)" }
  }

  /// The loop that the engine lives on.
  public let loop: LoopExecutor

  // Proof: touched on the loop only. The hook that has this pointer as its context is removed before it is freed.
  private let core: UnsafeMutablePointer<EngineCore>
  private let bell: ServiceBell
  private var hook: TurnHook.Token?
  private var bases: Bases?

  /// Checks and activates both rings. On the loop.
  ///
  /// - Parameters:
  ///   - loop: where the engine takes its turns.
  ///   - receive: the ring on which the driver offers buffers. Its `segmentCapacity` is raised to what bursts need.
  ///   - transmit: the ring on which the driver offers frames.
  ///   - memory: the driver's memory. The mappings outlive the engine's `stop`.
  ///   - format: what was negotiated about headers.
  ///   - port: the back-end's end of this pair; the engine closes it.
  ///   - receiveLine: raised when received frames were put on the receive ring.
  ///   - transmitLine: raised when transmitted frames were released.
  ///   - budget: frames moved each way in one turn.
  ///   - ledger: where to add what this engine does and drops.
  ///   - onEvent: called on the loop, at the end of a turn, with what happened beside frames. Must not block.
  ///   - onFailure: called on the loop, once for each ring that the driver breaks; the device then needs a reset.
  /// - Throws: the rule of configuration that a ring breaks.
  public init(
    loop: LoopExecutor, receive: consuming SplitDeviceRing.Configuration,
    transmit: consuming SplitDeviceRing.Configuration, memory: consuming GuestMemory, format: FrameFormat,
    port: any BackendPort, receiveLine: any InterruptLine, transmitLine: any InterruptLine, budget: Int = 64,
    ledger: PairLedger = PairLedger(), onEvent: @escaping (PortEvent) -> Void = { _ in },
    onFailure: @escaping (Failure) -> Void
  ) throws(RingError) {
    // Room for a burst of chains of a few buffers each.
    receive.segmentCapacity = max(receive.segmentCapacity, 2 * receive.size)
    transmit.segmentCapacity = max(transmit.segmentCapacity, 2 * transmit.size)
    let receiveRing = try receive.activate()
    let transmitRing = try transmit.activate()
    let rings = EngineRings(receive: receiveRing, transmit: transmitRing, memory: memory, format: format)
    self.loop = loop
    unsafe core = .allocate(capacity: 1)
    unsafe core.initialize(
      to: EngineCore(
        rings: rings, port: port, receiveLine: receiveLine, transmitLine: transmitLine, budget: max(budget, 1),
        ledger: ledger, onEvent: onEvent, onFailure: onFailure))
    unsafe bell = ServiceBell(loop: loop, core: core)
  }

  deinit {
    // A hook that is still in place would run on freed memory: then the memory is left to it. Whoever holds engines stops
    // them first, on their loop.
    guard hook == nil || loop.isOnLoop else { return }
    stop()
    unsafe core.deinitialize(count: 1)
    unsafe core.deallocate()
  }

  /// Begins to serve, with a look at both rings whether or not the driver has kicked. On the loop; once.
  ///
  /// - Throws: `BackendError` when the port cannot start, or when this is not the loop's thread.
  public func start() throws(BackendError) {
    guard hook == nil, bases == nil else { return }
    do throws(LoopError) {
      hook = try loop.addHook(
        unsafe TurnHook(
          stage: .device, context: UnsafeMutableRawPointer(core), begin: { _ in },
          end: { context in
            // The context that was given above.
            unsafe EngineCore.turn(context.assumingMemoryBound(to: EngineCore.self))
          }))
    } catch {
      throw BackendError(
        .system, "starting a queue pair", errno: error.errno, advice: "start it on its loop: \(error.description)")
    }
    do throws(BackendError) {
      try unsafe core.pointee.port.start(bell)
    } catch {
      stop()
      throw error
    }
    unsafe core.pointee.pending = true
    loop.requestTurn()
  }

  /// The driver has put buffers on the receive ring. On the loop; spurious calls are harmless.
  public func kickReceive() {
    guard hook != nil else { return }
    unsafe EngineCore.kick(core)
    loop.requestTurn()
  }

  /// The driver has put frames on the transmit ring. On the loop; spurious calls are harmless.
  public func kickTransmit() {
    guard hook != nil else { return }
    unsafe EngineCore.kick(core)
    loop.requestTurn()
  }

  /// Whether the pair is enabled. A disabled pair delivers nothing and discards what the driver transmits. On the loop.
  public var isEnabled: Bool {
    get { unsafe core.pointee.isEnabled }
    set {
      guard unsafe core.pointee.isEnabled != newValue else { return }
      unsafe core.pointee.isEnabled = newValue
      guard hook != nil else { return }
      unsafe core.pointee.port.setEnabled(newValue)
      unsafe core.pointee.pending = true
      loop.requestTurn()
    }
  }

  /// What has been done so far. On the loop.
  public var statistics: QueuePairStatistics { unsafe core.pointee.rings.statistics }

  /// What broke the receive ring, or nil while it works. On the loop.
  public var receiveFailure: RingError? { unsafe core.pointee.rings.receive.failure }

  /// What broke the transmit ring, or nil while it works. On the loop.
  public var transmitFailure: RingError? { unsafe core.pointee.rings.transmit.failure }

  /// Chains that broke a rule, on both rings. On the loop.
  public var malformedChains: UInt64 {
    unsafe core.pointee.rings.receive.malformedChains &+ core.pointee.rings.transmit.malformedChains
  }

  /// Stops serving: when this returns, nothing in the driver's memory is read or written any more, the port is closed, and
  /// no call will be raised. On the loop; idempotent.
  ///
  /// - Returns: where the rings stood. Every chain that was taken has been returned, so the used indices are the same.
  @discardableResult public func stop() -> Bases {
    if let bases { return bases }
    if let hook {
      // Refused only off the loop, where this is not called.
      try? loop.removeHook(hook)
      self.hook = nil
    }
    bell.disconnect()
    unsafe core.pointee.port.close()
    unsafe core.pointee.writeLedger()
    let bases = unsafe Bases(
      receive: core.pointee.rings.receive.nextAvailIndex, transmit: core.pointee.rings.transmit.nextAvailIndex)
    self.bases = bases
    return bases
  }
}
