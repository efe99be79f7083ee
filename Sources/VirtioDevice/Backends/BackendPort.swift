public import Virtio

/// What one burst of a port amounted to, and what it waits for: how the engine knows when to call again.
public struct ServeResult: OptionSet, Sendable {
  /// The bits.
  public let rawValue: UInt8
  /// A result with these bits.
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// The budget ran out before the work did: serve again in the next turn.
  public static let moreWork = ServeResult(rawValue: 1)
  /// Frames wait on the transmit ring, and another turn would not help: the port rings its bell, or a receive buffer comes.
  /// Without this, an empty-handed port means that the transmit ring is empty, and the engine asks for kicks.
  public static let transmitBlocked = ServeResult(rawValue: 2)
  /// Frames wait for receive buffers: kicks of the receive ring are wanted until the next burst.
  public static let needsReceiveBuffers = ServeResult(rawValue: 4)
}

/// The back-end's end of one queue pair: takes frames from the transmit ring, puts frames on the receive ring.
///
/// A port is made, started, served and closed on the loop of its queue pair and never touched elsewhere. It is called once a
/// burst, not once a packet: `serve` owns both rings for its duration, loops over them with calls that the compiler resolves
/// statically for each format of rings, and leaves publishing and interrupts to the engine. A ring that the driver has broken has no frames and no
/// buffers any more; the port goes on with the other one.
public protocol BackendPort: AnyObject {
  /// The engine is about to serve: watch descriptors, remember the bell. Called once.
  ///
  /// - Throws: `BackendError` when what it needs of the loop or the system is not there.
  func start(_ bell: ServiceBell) throws(BackendError)

  /// Moves up to `budget` frames each way: written once, for rings of any format.
  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult

  /// `serve` with split rings. The engine calls it, and so `serve` is compiled for them; nobody writes it.
  @_documentation(visibility: internal)
  func burst(_ rings: inout EngineRings<SplitDeviceRing>, budget: Int) -> ServeResult

  /// The same with packed rings.
  @_documentation(visibility: internal)
  func burst(_ rings: inout EngineRings<PackedDeviceRing>, budget: Int) -> ServeResult

  /// The driver enabled or disabled the pair. While it is disabled `serve` is not called: the engine discards what the
  /// driver transmits and nothing is received. A port is enabled unless it was told otherwise before its start.
  func setEnabled(_ enabled: Bool)

  /// The driver has asked for some frames and not for others, or has given the device another address (`ReceiveFilter.station`), which the
  /// port may use to bring fewer. What it brings all the same, the engine drops where `EngineRings.deliver` puts it on the ring. Once before the
  /// start, and whenever it changes.
  func setReceiveFilter(_ filter: ReceiveFilter)

  /// The engine stops: drops, and counts with `countDrop`, frames that were released to the driver and wait to be carried on.
  /// `close` follows. A port that keeps no frames from burst to burst does not need it.
  func dropWaiting<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>)

  /// The engine has stopped: neither ring will be handed over again. Ends sources; idempotent.
  func close()
}

extension BackendPort {
  /// The engine does what is needed.
  public func setReceiveFilter(_ filter: ReceiveFilter) {}

  /// Nothing waits.
  public func dropWaiting<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>) {}

  /// Calls `serve`.
  @_documentation(visibility: internal)
  @inlinable
  public func burst(_ rings: inout EngineRings<SplitDeviceRing>, budget: Int) -> ServeResult {
    serve(&rings, budget: budget)
  }

  /// Calls `serve`.
  @_documentation(visibility: internal)
  @inlinable
  public func burst(_ rings: inout EngineRings<PackedDeviceRing>, budget: Int) -> ServeResult {
    serve(&rings, budget: budget)
  }
}
