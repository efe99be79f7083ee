public import LibeventConcurrency
public import Netdev
public import Virtio

/// How a virtio device is reached: features, configuration, memory, queues, doorbells, interrupts.
///
/// One implementation a way: this process, vhost-user, vhost-net, vhost-vdpa, PCI. The driver above it knows none of them.
/// The order of calls is `VirtioNetDriver`'s: `attach(control:)`, `connect`, `reset`, status and features, `share`, `attachPair`
/// a pair, `setStatus(driverOK)`, `loss` and `changedConfig` whenever it has asked for attention, after a loss again from `connect`
/// on, and at the end `reset` and `shutDown`.
///
/// All but `attachPair` happens on the control loop, one call after the other. Calls that wait for the device have a deadline by
/// that loop's clock and return soon after their task was cancelled; a later `reset` still has its word with the device.
public protocol VirtioTransport: AnyObject, Sendable {
  /// A name for logs and statistics.
  var name: String { get }

  /// Who switches queue pairs on and off, and with that whether MQ needs a control virtqueue.
  var pairSwitching: FeatureSet.PairSwitching { get }

  /// How long the first frames of a queue pair other than the first may stay with the device before the pair counts as
  /// not served; nil where the device's number of pairs can be believed.
  var serviceTimeout: Duration? { get }

  /// What to do when the device is lost; nil where a lost device stays lost, and its queues break.
  var recovery: VirtioRecovery? { get }

  /// The control plane that this transport belongs to until `shutDown`: its loop, and the way to say that the device was lost, that
  /// a lost one is gone, or that the configuration has changed.
  func attach(control: DeviceControl)

  /// Whether the device that was driven last is lost: its connection ended, its process exited.
  func loss() async -> VirtioLoss?

  /// The configuration, if the device has changed it by itself since it was last read (VIRTIO 1.4 §2.5), as `offered` lets it be
  /// read; nil when it has not, or cannot be used.
  ///
  /// - Throws: what the device asks for instead, such as a reset.
  func changedConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig?

  /// Reaches the device; after a loss, reaches it again, or whatever has taken its place.
  ///
  /// - Throws: whatever keeps it from being reached, in the words of what was asked for.
  func connect() async throws(NetworkDeviceError)

  /// What the device offers.
  ///
  /// - Throws: what the device or the way to it answers.
  func offeredFeatures() async throws(NetworkDeviceError) -> FeatureSet

  /// Largest queue size; nil where the transport cannot tell.
  ///
  /// - Throws: what the device or the way to it answers.
  func maximumQueueSize() async throws(NetworkDeviceError) -> Int?

  /// The device's configuration, read as `NetConfig.read` does.
  ///
  /// - Throws: what the device or the way to it answers.
  func readConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig

  /// Tells the device what the driver accepts.
  ///
  /// - Throws: what the device or the way to it answers.
  func setFeatures(_ features: FeatureSet) async throws(NetworkDeviceError)

  /// Writes the device status.
  ///
  /// - Throws: what the device or the way to it answers.
  func setStatus(_ status: DeviceStatus) async throws(NetworkDeviceError)

  /// Reads the device status.
  ///
  /// - Throws: what the device or the way to it answers.
  func status() async throws(NetworkDeviceError) -> DeviceStatus

  /// Shows a pool's memory to the device.
  ///
  /// - Returns: the address that the device knows the pool's first byte by.
  /// - Throws: `invalidConfiguration` when the device cannot see this pool.
  func share(_ pool: PacketPool) async throws(NetworkDeviceError) -> UInt64

  /// Makes memory for the rings of all pairs that the device can see, zeroed; it lives as long as the device may use it.
  ///
  /// - Throws: `outOfMemory`.
  func makeRingMemory(bytes: Int) throws(NetworkDeviceError) -> SharedRingMemory

  /// Hands a pair's rings to the device. On the pair's loop.
  ///
  /// - Parameters:
  ///   - pair: where the rings lie, and what was agreed on.
  ///   - loop: the pair's loop.
  ///   - onInterrupt: called on the loop whenever the device interrupts for one of the pair's rings.
  ///   - onFailure: called on the loop when the device is gone or needs a reset.
  /// - Throws: what the device answers.
  func attachPair(
    _ pair: VirtioPairPlacement, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbells

  /// Resets the device and returns when it touches no memory any more.
  ///
  /// - Throws: `resetNotConfirmed` when that is not known within `timeout`.
  func reset(timeout: Duration) async throws(NetworkDeviceError)

  /// Lets go of the device.
  func shutDown() async

  /// What the device's own side has done so far, a queue pair each; empty where it does not tell. From any thread.
  var peerStatistics: [PeerStatistics] { get }
}

extension VirtioTransport {
  /// The device's number of pairs can be believed.
  public var serviceTimeout: Duration? { nil }
  /// A lost device stays lost.
  public var recovery: VirtioRecovery? { nil }
  /// It has nothing to tell.
  public func attach(control: DeviceControl) {}
  /// No device is ever lost.
  public func loss() async -> VirtioLoss? { nil }
  /// Most devices do not tell what they do.
  public var peerStatistics: [PeerStatistics] { [] }
  /// The configuration never changes.
  public func changedConfig(offered: FeatureSet) async throws(NetworkDeviceError) -> NetConfig? { nil }
}

/// What to do when a device is lost: look for it again, and go on.
public struct VirtioRecovery: Sendable, Hashable {
  /// What becomes of frames that the lost device had not released.
  public enum InFlight: Sendable, Hashable {
    /// They are submitted again, before anything newer: each at least once on the wire, perhaps twice.
    case resubmit
    /// Their sends fail with `frameLost`, which names the cause of the loss: each at most once on the wire.
    case fail
  }

  /// What becomes of frames in flight.
  public var inFlight = InFlight.resubmit
  /// Time between the first two attempts to reach the device; it doubles from one to the next, and goes on doubling when a
  /// device that came back is lost again within `longestDelay`.
  public var firstDelay = Duration.milliseconds(10)
  /// The longest such time.
  public var longestDelay = Duration.seconds(1)

  /// Submit again, try for as long as it takes.
  public init() {}
}

/// A device that was lost.
public struct VirtioLoss: Sendable {
  /// Why.
  public let cause: NetworkDeviceError
  /// Says whether the lost device is known to touch no memory any more, and waits for that no longer than it is told, and
  /// not at all when told zero; a cancelled task stops waiting. On the control loop.
  public let isGone: @Sendable (_ within: Duration) async -> Bool

  /// A loss.
  public init(cause: NetworkDeviceError, isGone: @escaping @Sendable (_ within: Duration) async -> Bool) {
    self.cause = cause
    self.isGone = isGone
  }
}

/// The doorbells of one pair. On the pair's loop.
public protocol VirtioDoorbells: AnyObject {
  /// There are new receive buffers.
  func kickReceive()
  /// There are new frames.
  func kickTransmit()
  /// The device is lost: whatever it still signals is not heard any more, its errors above all.
  func disconnect()
}

extension VirtioDoorbells {
  /// A device that is never lost.
  public func disconnect() {}
}

/// Memory for rings, as the driver writes it and as the device finds it.
@safe public struct SharedRingMemory: @unchecked Sendable {
  // Proof of Sendable: an address and what keeps it mapped; what lies there is used by the ring's two sides under the ring's
  // rules.

  /// First byte here, aligned to a page.
  public let pointer: UnsafeMutableRawPointer
  /// The same byte's address for the device.
  public let address: UInt64
  /// Length in bytes.
  public let length: Int
  /// Keeps the memory mapped here; nil where whoever made it does.
  public let owner: (any AnyObject & Sendable)?

  /// A piece of memory. While the device may use it, whoever makes it keeps it mapped for the device; `owner`, if there is
  /// one, keeps it mapped here for as long as the driver holds this value.
  @unsafe public init(
    pointer: UnsafeMutableRawPointer, address: UInt64, length: Int, owner: (any AnyObject & Sendable)? = nil
  ) {
    unsafe self.pointer = pointer
    self.address = address
    self.length = length
    self.owner = owner
  }

  /// The piece of `bytes` bytes at place `index`, which lies inside.
  func piece(_ index: Int, of bytes: Int) -> SharedRingMemory {
    unsafe SharedRingMemory(
      pointer: pointer.advanced(by: index * bytes), address: address &+ UInt64(index * bytes), length: bytes,
      owner: owner)
  }
}

/// Where the rings of a pair lie, and what was negotiated for them.
public struct VirtioPairPlacement: Sendable, Hashable {
  /// A ring's three areas by the addresses that the device knows, in the format that follows from the features.
  public struct Ring: Sendable, Hashable {
    /// Descriptors.
    public let size: Int
    /// Address of the descriptors.
    public let descriptors: UInt64
    /// Address of the driver area: the available ring, or event suppression of a packed ring.
    public let driver: UInt64
    /// Address of the device area: the used ring, or event suppression of a packed ring.
    public let device: UInt64

    /// A ring whose three areas lie in one piece at `address`, as `layout` places them.
    public init(_ layout: RingLayout, at address: UInt64) {
      size = Int(layout.size)
      descriptors = address
      driver = address &+ UInt64(layout.driverOffset)
      device = address &+ UInt64(layout.deviceOffset)
    }
  }

  /// Position of the pair, from 0.
  public let index: Int
  /// The receive ring, queue 2 × index.
  public let receive: Ring
  /// The transmit ring, queue 2 × index + 1.
  public let transmit: Ring
  /// The negotiated features.
  public let features: FeatureSet
}
