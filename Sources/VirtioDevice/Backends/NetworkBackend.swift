public import LibeventConcurrency
public import PacketFormats
public import Virtio

/// What stands behind a virtio-net device: where its frames go and come from.
///
/// A back-end is opened before there is a device, so that everything that can fail for lack of rights, names or addresses
/// fails there and with a typed error. The device computes what it offers from the properties below, which do not change.
/// Queue pairs get a port each, on their own loops; the data path goes through ports only.
public protocol NetworkBackend: AnyObject, Sendable {
  /// Short, for logs and errors: "tap tap0".
  var description: String { get }

  /// Offloads that the back-end can do, as virtio-net features. What concerns rings and the device itself is not its affair.
  var features: FeatureSet { get }

  /// Queue pairs that can be served at a time; at least 1.
  var maximumPairs: Int { get }

  /// The device's address, where the back-end knows it. Otherwise the device chooses one.
  var macAddress: MACAddress? { get }

  /// The largest frame without its Ethernet header, where the back-end knows it.
  var mtu: UInt16? { get }

  /// Whether `prepare` or `close` may block: they are then called on a thread that they share with those of all back-ends that
  /// block, and otherwise on a loop.
  var mayBlock: Bool { get }

  /// Does for a queue pair what may block, before its port is made: on a loop only if `mayBlock` is false. A back-end that has
  /// nothing of the kind does not say anything.
  ///
  /// - Throws: `BackendError` when the pair cannot be served.
  func prepare(pair: Int) throws(BackendError)

  /// Makes the port of a queue pair. Called on the pair's loop, each time the pair is started; the engine closes the port
  /// before the same pair gets another.
  ///
  /// - Throws: `BackendError` when there is no such port, or it is taken.
  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort

  /// Gives back what was opened, as far as no port uses it any more; ports that still do keep it until they are closed.
  /// From any thread, on a loop only if `mayBlock` is false; idempotent. Afterwards no port can be made.
  func close()
}

extension NetworkBackend {
  /// True: nothing is known.
  public var mayBlock: Bool { true }

  /// There is nothing to do.
  public func prepare(pair: Int) throws(BackendError) {}
}

/// Which queue pair a port is for, and what it must know about the device.
public struct PortRequest: Sendable {
  /// The pair, from 0.
  public let pair: Int
  /// The loop that the pair lives on.
  public let loop: LoopExecutor
  /// What was negotiated about frames.
  public let format: FrameFormat
  /// The device's address.
  public let macAddress: MACAddress
  /// For loops that the port makes.
  package var loopReports: @Sendable (_ loop: String) -> LoopReports = { _ in LoopReports() }

  /// A request for the port of one pair.
  public init(pair: Int, loop: LoopExecutor, format: FrameFormat, macAddress: MACAddress) {
    self.pair = pair
    self.loop = loop
    self.format = format
    self.macAddress = macAddress
  }
}
