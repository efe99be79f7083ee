public import LibeventConcurrency
public import PacketFormats

/// A driver of one network device: what `NetworkDevice.open(driver:)` drives.
///
/// The order of calls: `start` (find out and agree with the device), `attach(pool:)` once a pool, `makeQueue` once a pair
/// on the pair's loop, `activate` (the device may use the rings from here on), and at the end `reset` and `shutDown`,
/// whatever failed before. `reset` may be called at any time after `start`, from any task, more than once.
public protocol NetworkDriver: AnyObject, Sendable {
  /// Tells, from any thread, when the link goes down and comes up again; called once, before `start`.
  func watchLink(_ onChange: @escaping @Sendable (LinkChange) -> Void)

  /// Agrees on features and sizes with the device.
  ///
  /// - Throws: what keeps the device from being opened: `notFound`, `unsupported`, `invalidConfiguration`, `timedOut` and others.
  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation

  /// The pool's memory will hold this device's frames.
  ///
  /// - Throws: `invalidConfiguration` when the device cannot use this pool, or what the device answers.
  func attach(pool: PacketPool) async throws(NetworkDeviceError)

  /// Makes queue pair `index` for the loop it will live on; called on that loop.
  ///
  /// - Parameters:
  ///   - index: position of the pair, from 0.
  ///   - loop: where all of the pair happens.
  ///   - slots: the pool's buffers, by number.
  ///   - signal: calls back into the queue: interrupts and failures.
  /// - Throws: `outOfMemory`, `system`, or what the device answers.
  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver

  /// All pairs exist and their first buffers are posted: the device may begin.
  ///
  /// - Throws: what the device answers.
  func activate() async throws(NetworkDeviceError)

  /// Stops the device and returns when it has confirmed that it touches no buffer any more.
  ///
  /// - Throws: `resetNotConfirmed` when the device does not confirm within `timeout`.
  func reset(timeout: Duration) async throws(NetworkDeviceError)

  /// Releases descriptors and threads; after `reset`.
  func shutDown() async

  /// What the device has dropped so far, a queue pair each; empty where it does not tell. From any thread, also after
  /// `shutDown`.
  var deviceDrops: [DeviceDrops] { get }
}

extension NetworkDriver {
  /// The link of a driver that does not say is always up.
  public func watchLink(_ onChange: @escaping @Sendable (LinkChange) -> Void) {}
  /// Most devices do not tell.
  public var deviceDrops: [DeviceDrops] { [] }
}

/// What `NetworkDevice` asks a driver for.
public struct NetworkDriverRequest: Sendable, Hashable {
  /// Queue pairs wanted; nil takes what the device recommends, at least one.
  public var queuePairs: Int?
  /// Descriptors a ring; nil takes the device's or 256.
  public var queueSize: Int?

  /// A request.
  public init(queuePairs: Int? = nil, queueSize: Int? = nil) {
    self.queuePairs = queuePairs
    self.queueSize = queueSize
  }
}

/// What a device turned out to be.
public struct NetworkDeviceInformation: Sendable, Hashable {
  /// A name for logs and statistics.
  public var name: String
  /// The device's station address; nil where it has none, as a device without Ethernet.
  public var hardwareAddress: MACAddress?
  /// Largest layer-3 packet in bytes; a frame is longer by its Ethernet header, and by its VLAN tags.
  public var mtu: Int
  /// Longest frame in bytes without VLAN tags that this device sends and receives: one limit for both ways. A frame with
  /// tags may be longer by four bytes a tag, up to two (``frameLimit``). The device's frames above it are dropped by the
  /// driver, and counted (``QueueDriverStatistics/receiveDropsLength``); a program's are refused (`frameTooLong`).
  public var maximumFrameLength: Int
  /// Queue pairs in use.
  public var queuePairs: Int
  /// Descriptors a ring.
  public var queueSize: Int
  /// Headroom in bytes that the device's net header needs.
  public var headroom: Int
  /// Smallest buffer in bytes that reception can use, headroom not included.
  public var receiveBufferSize: Int

  /// The limit of a frame's length, for frames with VLAN tags and without.
  public var frameLimit: FrameLimit { FrameLimit(untagged: maximumFrameLength) }

  /// What a driver fills in; without a `maximumFrameLength` that is the MTU and an Ethernet header.
  public init(
    name: String, hardwareAddress: MACAddress?, mtu: Int, queuePairs: Int, queueSize: Int, headroom: Int,
    receiveBufferSize: Int, maximumFrameLength: Int? = nil
  ) {
    self.name = name
    self.hardwareAddress = hardwareAddress
    self.mtu = mtu
    self.maximumFrameLength = maximumFrameLength ?? FrameLimit(mtu: mtu).untagged
    self.queuePairs = queuePairs
    self.queueSize = queueSize
    self.headroom = headroom
    self.receiveBufferSize = receiveBufferSize
  }
}
