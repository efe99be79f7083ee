public import LibeventConcurrency
public import PacketFormats

/// A driver of one network device: what `NetworkDevice.open(driver:)` drives.
///
/// One task a device calls it, on the device's control loop, one step after the other: `attach(control:)`, `start` (find out
/// and agree with the device), `attach(pool:)` once a pool, `makeQueue` once a pair on the pair's loop, `activate` (the device
/// may use the rings from here on); then `attend` whenever the driver has asked for attention, and where that throws, because
/// the device is lost, `suspend` and `recover`; `perform` whenever the program has something to tell the device; at the end
/// `reset` and `shutDown`, whatever failed before. No step begins before the one before it has ended.
///
/// Whoever closes the device cancels the step under way: a step that waits for a peer returns soon after its task was
/// cancelled, with any error, and leaves what it was about in a state that `reset` can deal with. `reset` and `shutDown` are not
/// cancelled; they have bounds. A driver that has been shut down can be opened again, one device at a time.
public protocol NetworkDriver: ControlChannel {
  /// The pauses between attempts to reach a lost device again; nil where a lost device stays lost.
  var recovery: RecoveryPauses? { get }

  /// The way to the device's life; called once a life, before everything else.
  func attach(control: DeviceControl)

  /// Agrees on features and sizes with the device. Deadlines towards the device are the driver's; cancelled when the device is
  /// to close.
  ///
  /// - Throws: what keeps the device from being opened: `notFound`, `unsupported`, `invalidConfiguration`, `timedOut` and others.
  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation

  /// The pool's memory will hold this device's frames. Deadlines and cancellation as for `start`.
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

  /// All pairs exist and their first buffers are posted: the device may begin. Deadlines and cancellation as for `start`.
  ///
  /// - Throws: what the device answers.
  func activate() async throws(NetworkDeviceError)

  /// Looks at whatever it asked attention for. Being called for nothing is harmless. Deadlines and cancellation as for `start`.
  ///
  /// - Throws: why the device is lost, when it is.
  func attend() async throws(NetworkDeviceError)

  /// The device is lost: nothing is published, posted or rung until it is back. Waits for nobody but the pairs' loops, and for
  /// those no longer than a bound; not cancelled.
  func suspend() async

  /// Tries once to reach the lost device, or what has taken its place, and to go on with it where the lost one stopped.
  /// Deadlines and cancellation as for `start`.
  ///
  /// - Throws: what keeps it from being reached. After `unsupported`, `invalidConfiguration` and `resetNotConfirmed` the device
  ///   ends with this error; after anything else the attempt is repeated.
  func recover() async throws(NetworkDeviceError)

  /// Stops the device and returns when it has confirmed that it touches no buffer any more.
  ///
  /// - Throws: `resetNotConfirmed` when the device does not confirm within `timeout`, by the control loop's clock.
  func reset(timeout: Duration) async throws(NetworkDeviceError)

  /// Releases descriptors and threads, without waiting for a peer; after `reset`.
  func shutDown() async

  /// What the device has dropped so far, a queue pair each; empty where it does not tell. From any thread, also after
  /// `shutDown`.
  var deviceDrops: [DeviceDrops] { get }

  /// What the device's own side has done so far, drops included, a queue pair each; empty where it does not tell. From any thread,
  /// also after `shutDown`.
  var peerStatistics: [PeerStatistics] { get }
}

// What a driver need not say whose device has no control plane: it is never lost, never changes, and cannot be told anything.
extension NetworkDriver {
  /// There is no way to tell the device.
  public func perform(_ command: ControlCommand) async throws(NetworkDeviceError) {
    throw .cannotBeTold(command, "this driver has no way to tell its device")
  }
  /// Most devices do not tell.
  public var deviceDrops: [DeviceDrops] { peerStatistics.map { $0.drops } }
  /// Most devices do not tell.
  public var peerStatistics: [PeerStatistics] { [] }
  /// A lost device stays lost.
  public var recovery: RecoveryPauses? { nil }
  /// It never asks for attention.
  public func attach(control: DeviceControl) {}
  /// Nothing to look at.
  public func attend() async throws(NetworkDeviceError) {}
  /// Nothing to hold back.
  public func suspend() async {}
  /// There is no way back.
  public func recover() async throws(NetworkDeviceError) {
    throw NetworkDeviceError(.unsupported, "recover", offered: "this driver does not look for a lost device")
  }
}

/// How often a lost device is looked for.
public struct RecoveryPauses: Sendable, Hashable {
  /// Time between the first two attempts; it doubles from one to the next. A device that stays for less than `longest` and is
  /// lost again is looked for with pauses that go on growing.
  public var first: Duration
  /// The longest such time.
  public var longest: Duration

  /// Pauses; none is shorter than a millisecond.
  public init(first: Duration = .milliseconds(10), longest: Duration = .seconds(1)) {
    self.first = max(first, .milliseconds(1))
    self.longest = max(longest, self.first)
  }
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
