internal import CNetdevSystem
internal import Glibc
internal import HostInterfaces
internal import LibeventConcurrency
public import PacketFormats
import Synchronization
public import Virtio

/// A TAP interface of this machine: what the driver transmits the kernel receives on the interface, and the other way round.
///
/// One descriptor a queue pair, all opened when the back-end is made, so that whatever can be refused is refused there. The
/// kernel steers each flow to the queue that the flow was last transmitted on (tun's flow table), among the queues that a
/// port serves: the others are detached. Frames are read and written in place, in the driver's buffers. No offloads are
/// offered yet.
///
/// An interface that does not exist is made, and vanishes when the last descriptor is closed; one that somebody has made
/// (`ip tuntap add dev tap0 mode tap user alice multi_queue`) is only attached to. Addresses are the user's business.
///
/// It can be a TUN interface too, of layer 3: the kernel's side then has packets without Ethernet, whose header is made and taken off
/// here, and ARP and neighbor discovery of the driver's side are answered here.
public final class TapBackend: NetworkBackend {
  /// The interface's name, as the kernel knows it.
  public let interface: String
  /// None.
  public let features = FeatureSet()
  /// Queues of the interface that were opened.
  public let maximumPairs: Int
  /// None: the interface's own address is that of the other end of the wire.
  public let macAddress: MACAddress? = nil
  /// The interface's MTU when it was opened.
  public let mtu: UInt16?

  let state: Mutex<State>
  private let observer: (any FrameObserver)?

  private let kind: TapQueue.Kind

  /// What is open.
  struct State {
    var queues: [TapQueue] = []
    /// Where changes of the interface are told, and which link it is; nil where the kernel does not say.
    var link: (socket: LinkSocket, index: CInt)?
  }

  /// Opens the queues of a TAP interface.
  ///
  /// - Parameters:
  ///   - name: the interface, up to 15 bytes; empty lets the kernel choose a name.
  ///   - count: how many queues to open, one for each queue pair. More than one needs `multi_queue`, with which a new
  ///     interface is made.
  ///   - bringUp: sets the interface up if this process is permitted to; a lack of permission is no error.
  ///   - isLayer3: a TUN interface, of packets without Ethernet.
  ///   - observer: sees every frame of a TAP interface; nil costs nothing.
  /// - Throws: `BackendError` with advice: no /dev/net/tun, no permission, a name that is taken or not a TAP interface,
  ///   too many queues.
  public init(
    _ name: String, queues count: Int = 1, bringUp: Bool = true, isLayer3: Bool = false,
    observer: (any FrameObserver)? = nil
  ) throws(BackendError) {
    let kind: TapQueue.Kind = isLayer3 ? .tun : .tap
    self.kind = kind
    guard count >= 1 else {
      throw BackendError(
        .invalidConfiguration, "opening \(kind.word) \(name)", advice: "ask for at least one queue, not \(count)")
    }
    let opened = try TapQueue.open(name: name, count: count, kind: kind)
    interface = opened.first?.interface ?? name
    maximumPairs = count
    self.observer = observer
    // Nobody serves them yet: what the kernel steers to an attached queue would be lost.
    for queue in opened { try queue.setAttached(false) }
    if bringUp { try Self.bringUp(interface, kind) }
    // Beyond 16 bits there is nothing to offer; a kernel that does not say leaves the driver's default.
    let socket = LinkSocket()
    let found = socket?.look(interface)
    mtu = found.flatMap { $0.mtu >= 68 ? UInt16(clamping: $0.mtu) : nil }
    var state = State(queues: opened)
    if let socket, let found { state.link = (socket, found.index) }
    self.state = Mutex(state)
  }

  private static func bringUp(_ name: String, _ kind: TapQueue.Kind) throws(BackendError) {
    let result = unsafe netdev_interface_set_up(name, true)
    // Who may not set it up has it set up by somebody else, now or later.
    guard !netdev_error_is_refusal(-result) else { return }
    guard result == 0, LinkSocket()?.look(name)?.is_up ?? true else {
      throw BackendError(
        .system, "setting \(kind.word) \(name) up", errno: -result,
        advice: BackendError.advice(for: -result, otherwise: "set it up yourself: ip link set \(name) up"))
    }
  }

  /// "tap tap0".
  public var description: String { "\(kind.mode) \(interface)" }

  /// Has the kernel steer flows to the pair's queue.
  public func prepare(pair: Int) throws(BackendError) {
    guard let queue = state.withLock({ $0.queues.indices.contains(pair) ? $0.queues[pair] : nil }) else { return }
    try queue.prepare()
  }

  /// Makes the port that serves one queue; the pair's number is the queue's.
  public func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
    let operation = "starting queue pair \(request.pair) of \(kind.word) \(interface)"
    guard request.pair >= 0, request.pair < maximumPairs else {
      throw BackendError(.notOffered, operation, advice: "it was opened with queues=\(maximumPairs)")
    }
    let (queue, link) = state.withLock { state in (state.queues.isEmpty ? nil : state.queues[request.pair], state.link)
    }
    guard let queue else { throw BackendError(.closed, operation, advice: "open the device again") }
    let watched =
      request.pair == 0
      ? ServedTapQueue.Watched(queues: maximumPairs, link: link, reports: request.loopReports(LinkWatch.loopName)) : nil
    let mtu = Int(mtu ?? 1500)
    let served = ServedTapQueue(queue, number: request.pair, mtu: mtu, watching: watched)
    switch kind {
    case .tap: return TapPort(served, number: request.pair, mtu: mtu, observer: observer)
    case .tun: return TunPort(served, mtu: mtu, station: request.macAddress)
    }
  }

  /// Closes the descriptors, which may block; those that a port still serves close with the port.
  public func close() {
    let closed = state.withLock { state in
      let all = state
      state = State()
      return all
    }
    // What ports have asked for holds the queues too.
    for queue in closed.queues { queue.calls.finish() }
    // The last reference to each descriptor goes here, outside the lock: closing a TAP queue can take a while.
    withExtendedLifetime(closed) {}
  }
}
