public import LibeventConcurrency
public import Netdev
public import Virtio

/// How a virtio device is reached: features, configuration, memory, queues, doorbells, interrupts.
///
/// One implementation a way: this process, vhost-user, vhost-net, vhost-vdpa, PCI. The driver above it knows none of them.
/// The order of calls is `VirtioNetDriver`'s: `attach(control:)`, `connect`, `reset`, status and features, `share`, `attachQueue`
/// a virtqueue, `setStatus(driverOK)`, `loss` and `changedConfig` whenever it has asked for attention, after a loss again from `connect`
/// on, and at the end `reset` and `shutDown`.
///
/// All but `attachQueue` happens on the control loop, one call after the other. Calls that wait for the device have a deadline by
/// that loop's clock and return soon after their task was cancelled; a later `reset` still has its word with the device.
public protocol VirtioTransport: ControlChannel {
  /// A name for logs and statistics.
  var name: String { get }

  /// Who switches queue pairs on and off, and with that whether MQ needs a control virtqueue.
  var pairSwitching: FeatureSet.PairSwitching { get }

  /// Features without which the device cannot be reached this way, as ACCESS_PLATFORM where addresses are translated: a device that
  /// does not offer them is refused, and the driver accepts them.
  var requiredFeatures: FeatureSet { get }

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

  /// The most virtqueues that can be attached, which bounds the queue pairs; nil where the configuration has the last word.
  ///
  /// - Throws: what the device or the way to it answers.
  func maximumQueues() async throws(NetworkDeviceError) -> Int?

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

  /// Makes memory for rings that the device can be shown, zeroed. It lives as long as its owner.
  ///
  /// - Throws: `outOfMemory`.
  func makeRingMemory(bytes: Int) throws(NetworkDeviceError) -> VirtioMemory

  /// Shows memory to the device, a pool's or that of rings, and keeps it mapped as long as the device may use it. The first
  /// is the pool's, in every life of the device, and has the same address each time.
  ///
  /// - Returns: the address that the device knows the first byte by.
  /// - Throws: `invalidConfiguration` or `outOfMemory` when the device cannot see it.
  func share(_ memory: VirtioMemory) async throws(NetworkDeviceError) -> UInt64

  /// Hands a virtqueue to the device. On the queue's loop; the two queues of a pair have the same, and the one that receives is
  /// attached first. The control virtqueue, which is attached last, has the control loop.
  ///
  /// - Parameters:
  ///   - queue: where the ring lies, and what was agreed on.
  ///   - loop: the queue's loop.
  ///   - onInterrupt: called on the loop whenever the device interrupts for this queue. Where both queues of a pair share an
  ///     interrupt, one of the two is called.
  ///   - onFailure: called on the loop when the device is gone or needs a reset; where that is known of a pair alone, for one of
  ///     the two.
  /// - Throws: what the device answers.
  func attachQueue(
    _ queue: VirtioQueuePlacement, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbell

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
  /// A device without a control virtqueue cannot be told anything, unless its transport has means of its own.
  public func perform(_ command: ControlCommand) async throws(NetworkDeviceError) {
    throw .cannotBeTold(command, "\(name) has no control virtqueue, and no other way to be told")
  }
  /// None.
  public var requiredFeatures: FeatureSet { [] }
  /// The configuration has the last word.
  public func maximumQueues() async throws(NetworkDeviceError) -> Int? { nil }
  /// Memory of this process, for a device that is here too.
  public func makeRingMemory(bytes: Int) throws(NetworkDeviceError) -> VirtioMemory { RingBlock(bytes: bytes).memory }
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
