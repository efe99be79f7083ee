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
  /// Where the rings stood when the engine stopped: where each would have looked for the next available chain, which is what a
  /// transport gives back to a driver that goes on later (GET_VRING_BASE). Of a packed ring bit 15 is the wrap counter.
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

  // Proof: touched on the loop only. Its owner has the hook removed before it frees it.
  private let requests: UnsafeMutablePointer<EngineRequests>
  private let work: any EngineWork
  private let bell: ServiceBell
  private var hook: TurnHook.Token?
  private var bases: Bases?

  /// Checks and activates both rings, in the format that was negotiated. On the loop.
  ///
  /// - Parameters:
  ///   - loop: where the engine takes its turns.
  ///   - receive: the ring on which the driver offers buffers.
  ///   - transmit: the ring on which the driver offers frames.
  ///   - memory: the driver's memory. The mappings outlive the engine's `stop`.
  ///   - format: what was negotiated, about headers and about rings.
  ///   - port: the back-end's end of this pair; the engine closes it.
  ///   - receiveLine: raised when received frames were put on the receive ring.
  ///   - transmitLine: raised when transmitted frames were released.
  ///   - budget: frames moved each way in one turn.
  ///   - ledger: where to add what this engine does and drops.
  ///   - onEvent: called on the loop, at the end of a turn, with what happened beside frames. Must not block.
  ///   - onFailure: called on the loop, once for each ring that the driver breaks; the device then needs a reset.
  /// - Throws: the rule of configuration that a ring breaks.
  public init(
    loop: LoopExecutor, receive: RingAreas, transmit: RingAreas, memory: consuming GuestMemory, format: FrameFormat,
    port: any BackendPort, receiveLine: any InterruptLine, transmitLine: any InterruptLine, budget: Int = 64,
    ledger: PairLedger = PairLedger(), onEvent: @escaping (PortEvent) -> Void = { _ in },
    onFailure: @escaping (Failure) -> Void
  ) throws(RingError) {
    let requests = UnsafeMutablePointer<EngineRequests>.allocate(capacity: 1)
    unsafe requests.initialize(to: EngineRequests())
    let parts = unsafe EngineParts(
      requests: requests, port: port, receiveLine: receiveLine, transmitLine: transmitLine, budget: max(budget, 1),
      ledger: ledger, onEvent: onEvent, onFailure: onFailure)
    do throws(RingError) {
      switch RingFormat(format.features) {
      case .split: work = try EngineCoreHolder<SplitDeviceRing>(receive, transmit, memory, format, parts)
      case .packed: work = try EngineCoreHolder<PackedDeviceRing>(receive, transmit, memory, format, parts)
      }
    } catch {
      unsafe requests.deinitialize(count: 1)
      unsafe requests.deallocate()
      throw error
    }
    self.loop = loop
    unsafe self.requests = requests
    unsafe bell = ServiceBell(loop: loop, requests: requests)
  }

  deinit {
    // A hook that is still in place would run on freed memory: then the memory is left to it. Whoever holds engines stops
    // them first, on their loop.
    guard hook == nil || loop.isOnLoop else { return }
    stop()
    work.free()
    unsafe requests.deinitialize(count: 1)
    unsafe requests.deallocate()
  }

  /// Begins to serve, with a look at both rings whether or not the driver has kicked. On the loop; once.
  ///
  /// - Throws: `BackendError` when the port cannot start, or when this is not the loop's thread.
  public func start() throws(BackendError) {
    guard hook == nil, bases == nil else { return }
    do throws(LoopError) {
      hook = try loop.addHook(work.hook)
    } catch {
      throw BackendError(
        .system, "starting a queue pair", errno: error.errno, advice: "start it on its loop: \(error.description)")
    }
    if !work.isEnabled { work.tellEnabled() }
    do throws(BackendError) {
      try work.start(bell)
    } catch {
      stop()
      throw error
    }
    unsafe requests.pointee.pending = true
    loop.requestTurn()
  }

  /// The driver has put buffers on the receive ring. On the loop; spurious calls are harmless.
  public func kickReceive() { kick() }

  /// The driver has put frames on the transmit ring. On the loop; spurious calls are harmless.
  public func kickTransmit() { kick() }

  /// The driver has put something on a ring: a turn looks at both.
  package func kick() {
    guard hook != nil else { return }
    unsafe requests.pointee.pending = true
    unsafe requests.pointee.kicks &+= 1
    loop.requestTurn()
  }

  /// Whether the pair is enabled. A disabled pair delivers nothing and discards what the driver transmits. On the loop.
  public var isEnabled: Bool {
    get { work.isEnabled }
    set {
      guard work.isEnabled != newValue else { return }
      work.isEnabled = newValue
      guard hook != nil else { return }
      work.tellEnabled()
      unsafe requests.pointee.pending = true
      loop.requestTurn()
    }
  }

  /// Which frames are put on the receive ring: all of them, until it is told otherwise. On the loop.
  public var receiveFilter: ReceiveFilter? {
    get { work.filter }
    set { if work.filter != newValue { work.filter = newValue } }
  }

  /// What has been done so far. On the loop.
  public var statistics: QueuePairStatistics {
    var statistics = work.statistics
    statistics.kicks = unsafe requests.pointee.kicks
    return statistics
  }

  /// What broke the receive ring, or nil while it works. On the loop.
  public var receiveFailure: RingError? { work.failures.receive }

  /// What broke the transmit ring, or nil while it works. On the loop.
  public var transmitFailure: RingError? { work.failures.transmit }

  /// Chains that broke a rule, on both rings. On the loop.
  public var malformedChains: UInt64 { work.malformedChains }

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
    let bases = work.close()
    self.bases = bases
    return bases
  }
}
