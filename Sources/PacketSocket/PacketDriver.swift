internal import CNetdevSystem
internal import Glibc
internal import HostInterfaces
public import LibeventConcurrency
public import Logging
public import Netdev
internal import PacketFormats
internal import Synchronization

/// An interface of this host as a device, by packet sockets (`AF_PACKET`): frames that arrive at the interface are received,
/// and those that are sent leave by it.
///
/// **The host's own stack sees the same frames.** It is not pushed aside: it answers what is addressed to it, and what it sends
/// itself is not received here. A program that answers for an address of its own gives it to no interface of the host.
///
/// Each queue pair is a socket with two rings of TPACKET_V2, in which a frame is there as soon as it has arrived (blocks of
/// TPACKET_V3 are handed over late). Several sockets share the interface's frames by flow (`PACKET_FANOUT_HASH`); a filter
/// lets no frame pass until all of them have joined, so that none comes twice. The kernel copies in both directions, and the
/// driver copies between the rings and the pool: no buffer of the pool is ever known to the kernel.
///
/// VLAN tags that the kernel has taken out are put back, and checksums that it has not completed yet are completed. Frames that
/// it has merged or not cut yet (GRO, TSO) are dropped and counted: switch that off where they come from.
///
/// It takes CAP_NET_RAW, in the network namespace of the thread that makes the driver. An interface that is lost stays lost. A
/// driver that has been shut down looks for its interface, by name, when it is opened again: on the thread of the
/// device's control loop, and `notFound` is thrown when that is in another namespace than the one before.
public final class PacketDriver: NetworkDriver {
  /// Choices of the program.
  public struct Options: Sendable, Hashable {
    /// Receives frames for other stations too, which a switch or a forwarder wants; as long as the device is open. Otherwise
    /// the kernel drops them before they are in a ring.
    public var isPromiscuous = false

    /// Nothing but what is for this station, or for all.
    public init() {}
  }

  /// The interface's name when the driver was made.
  public let interface: String
  let logger: Logger
  private let queues: Int
  private let namespace: UInt64
  private let options: Options
  private let state: Mutex<State>

  struct State {
    /// The interface, as it was when the sockets were opened.
    var found: netdev_packet_interface
    var sockets: [PacketSocket] = []
    /// Stays when the sockets are closed: who asks for drops then gets what they counted.
    var counts: [PacketCounts] = []
    /// Where the kernel tells of the interface; nil where it does not.
    var links: LinkSocket?
    var control: DeviceControl?
    var watch: LinkWatch?
    /// A socket's rings each, until its queue is made.
    var rings: [PacketRings] = []
    var queues: [PacketQueue.Reference] = []
    var queueSize = 256
    /// What the kernel has said last, and nobody has looked at.
    var seen: LinkWatch.Seen?
    var isUp = true
    var mtu = 0
    /// When the end has to be over.
    var deadline: LoopDeadline?
  }

  /// The longest frame that a buffer of the largest pool can hold, behind its headroom, has 65408 bytes, tags included. The
  /// loopback interface has longer ones, which are dropped.
  private static let largestMTU = 65_408 - EthernetHeader.length - FrameLimit.maximumTags * FrameLimit.tagLength

  /// Opens a socket a queue pair on an interface that exists.
  ///
  /// - Parameters:
  ///   - interface: its name in the calling thread's network namespace.
  ///   - queues: how many pairs the device may have, 1 to 256.
  ///   - options: what to receive.
  ///   - logger: where it says what it drops, once for each reason.
  /// - Throws: `notPermitted` without CAP_NET_RAW, `notFound` with the names of the interfaces that there are, `unsupported`
  ///   for an interface without Ethernet, `invalidConfiguration` for a name or number that cannot be.
  public init(
    _ interface: String, queues: Int = 1, options: Options = Options(), logger: Logger = Logger(label: "netdev.packet")
  ) throws(NetworkDeviceError) {
    guard (1...256).contains(queues) else {
      throw NetworkDeviceError(
        .invalidConfiguration, "opening interface \(interface)", offered: "\(queues) queue pairs",
        advice: "ask for 1 to 256")
    }
    guard !interface.utf8.contains(0) else {
      throw NetworkDeviceError(
        .invalidConfiguration, "opening an interface", offered: "a name with a zero in it", advice: "take it out")
    }
    self.interface = interface
    self.options = options
    self.logger = logger.aside
    self.queues = queues
    namespace = netdev_packet_namespace()
    let found = try PacketDriver.find(interface, queues: queues, logger: logger.aside)
    // Waits for whoever holds the lock of links, as opening a TAP does. Each watch of the interface will wait for him, also behind
    // the end of its device: a program that opens and closes meanwhile would leave one after the other.
    _ = found.links?.look(interface)
    state = Mutex(found)
  }

  /// Opens the sockets, in the calling thread's network namespace.
  private static func find(
    _ interface: String, queues: Int, logger: Logger
  ) throws(NetworkDeviceError) -> State {
    var sockets: [PacketSocket] = []
    for index in 0..<queues { sockets.append(try PacketSocket(interface: interface, index: index, logger: logger)) }
    let found = try look(interface, sockets[0])
    // Where netlink is refused, frames that are not taken tell of a lost interface.
    return State(
      found: found, sockets: sockets, counts: sockets.map { $0.counts }, links: LinkSocket(), mtu: Int(found.mtu))
  }

  /// Opens the sockets again after the driver was shut down.
  private func findAgain(_ operation: String) throws(NetworkDeviceError) {
    guard state.withLock({ $0.sockets.isEmpty }) else { return }
    guard netdev_packet_namespace() == namespace else {
      throw NetworkDeviceError(
        .notFound, operation, offered: "it is in another network namespace than the one that the driver is opened in",
        advice: "make another driver, on a thread that is in the interface's namespace")
    }
    var again = try Self.find(interface, queues: queues, logger: logger)
    state.withLock { state in
      again.control = state.control
      state = again
    }
  }

  private static func look(
    _ interface: String, _ socket: PacketSocket
  ) throws(NetworkDeviceError) -> netdev_packet_interface {
    var found = netdev_packet_interface()
    // A string is handed over with its zero.
    let result = unsafe netdev_packet_look(socket.descriptor, interface, &found)
    guard result == 0 else { throw NetworkDeviceError(finding: interface, errno: result) }
    guard found.is_ethernet else {
      throw NetworkDeviceError(
        .unsupported, "opening interface \(interface)", offered: "its frames have no Ethernet headers",
        advice: "take an Ethernet interface")
    }
    return found
  }

  /// Frames dropped by the kernel for want of room in a ring, and by the driver.
  public var deviceDrops: [DeviceDrops] {
    let (counts, sockets) = state.withLock { ($0.counts, $0.sockets) }
    for socket in sockets { socket.askForDrops() }
    return counts.map { $0.drops }
  }
}

// MARK: - Opening

extension PacketDriver {
  /// What becomes of the interface is told to this control; the interface is watched on a loop of the driver's own.
  public func attach(control: DeviceControl) { state.withLock { $0.control = control } }

  /// What the interface is.
  public func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    let operation = "opening interface \(interface)"
    try findAgain(operation)
    let (found, offered, control, links) = state.withLock { ($0.found, $0.sockets.count, $0.control, $0.links) }
    guard let control else {
      throw NetworkDeviceError(.invalidConfiguration, operation, advice: "attach a control first")
    }
    let (pairs, size) = (request.queuePairs ?? offered, request.queueSize ?? 256)
    guard (1...offered).contains(pairs) else {
      throw NetworkDeviceError(
        .invalidConfiguration, operation, offered: "\(pairs) queue pairs", advice: "it was opened with \(offered)")
    }
    guard (2...32_768).contains(size) else {
      throw NetworkDeviceError(
        .invalidConfiguration, operation, offered: "rings of \(size) frames", advice: "2 to 32768 are possible")
    }
    state.withLock { state in
      state.sockets.removeLast(offered - pairs)
      state.counts.removeLast(offered - pairs)
      state.queueSize = size
    }
    if let links { try watch(links, found, control) }
    let limit = Self.offeredLimit(found)
    for socket in state.withLock({ $0.sockets }) { socket.counts.limit.store(limit.untagged, ordering: .relaxed) }
    return NetworkDeviceInformation(
      name: "packet \(interface)", hardwareAddress: Self.address(found),
      mtu: limit.untagged - EthernetHeader.length, queuePairs: pairs, queueSize: size, headroom: 0,
      receiveBufferSize: limit.longest)
  }

  private static func address(_ found: netdev_packet_interface) -> MACAddress? {
    let bytes = found.address
    let address = MACAddress(bytes.0, bytes.1, bytes.2, bytes.3, bytes.4, bytes.5)
    // The loopback interface has none.
    return address == .zero ? nil : address
  }

  /// Maps the rings of all sockets, side by side. The pool's memory is this process' own affair.
  public func attach(pool: PacketPool) async throws(NetworkDeviceError) {
    let (sockets, size, control) = state.withLock { ($0.sockets, $0.queueSize, $0.control) }
    guard let control else { throw NetworkDeviceError(.closed, "setting up interface \(interface)") }
    let preparations = sockets.map { socket in
      control.loop.call(blocking: { () -> Result<PacketRings, NetworkDeviceError> in
        let limit = FrameLimit(untagged: socket.counts.limit.load(ordering: .relaxed))
        return Result { () throws(NetworkDeviceError) in
          try PacketRings(socket: socket, limit: limit, capacity: size)
        }
      })
    }
    var rings: [PacketRings] = []
    for preparation in preparations { rings.append(try Self.outcome(of: await preparation.value())) }
    state.withLock { $0.rings = rings }
  }

  private static func outcome<Value>(
    of call: LoopPromise<Result<Value, NetworkDeviceError>>.Outcome
  ) throws(NetworkDeviceError) -> Value {
    guard case .value(let result) = call else {
      throw NetworkDeviceError(.cancelled, "opening a packet device", offered: "it was closed meanwhile")
    }
    return try result.get()
  }

  /// Takes the rings of one socket over.
  public func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    let (rings, control, size) = state.withLock { state in
      (state.rings.indices.contains(index) ? state.rings[index] : nil, state.control, state.queueSize)
    }
    guard let rings, let control else {
      throw NetworkDeviceError(.closed, "making queue pair \(index) of interface \(interface)")
    }
    let limit = FrameLimit(untagged: rings.socket.counts.limit.load(ordering: .relaxed))
    let queue = try PacketQueue(
      rings, limit: limit, capacity: size, loop: loop, slots: slots, signal: signal
    ) { control.requestAttention() }
    state.withLock { $0.queues.append(PacketQueue.Reference(queue: queue, loop: loop)) }
    return queue
  }

  /// Binds the sockets and joins them, each behind its filter, and then lets the filters go, or only frames for this station
  /// pass them. The queues have the rings by now.
  public func activate() async throws(NetworkDeviceError) {
    let (sockets, found, control) = state.withLock { state in
      state.rings = []
      return (state.sockets, state.found, state.control)
    }
    guard let control else { throw NetworkDeviceError(.closed, "activating interface \(interface)") }
    let options = options
    let activation = control.loop.call(blocking: { () -> Result<Void, NetworkDeviceError> in
      Result { () throws(NetworkDeviceError) in try Self.activate(sockets, found, options) }
    })
    try Self.outcome(of: await activation.value())
  }

  /// Waits for the kernel's grace periods, and for its lock of links: not on a loop.
  private static func activate(
    _ sockets: [PacketSocket], _ found: netdev_packet_interface, _ options: Options
  ) throws(NetworkDeviceError) {
    var group: CInt = -1
    for socket in sockets {
      try socket.check(.binding, netdev_packet_bind(socket.descriptor, found.index))
      guard sockets.count > 1 else { continue }
      group = netdev_packet_join(socket.descriptor, group)
      try socket.check(.joining, group)
    }
    if options.isPromiscuous, let first = sockets.first {
      try first.check(.promiscuous, netdev_packet_promise_all(first.descriptor, found.index))
    }
    for socket in sockets { try socket.check(.opening, netdev_packet_begin(socket.descriptor, options.isPromiscuous)) }
  }
}

// MARK: - What becomes of the interface

extension PacketDriver {
  private func watch(
    _ links: LinkSocket, _ found: netdev_packet_interface, _ control: DeviceControl
  ) throws(NetworkDeviceError) {
    do throws(LoopError) {
      // What is not in the sockets' namespace any more is lost, wherever it is.
      let reports = LoopReports(logger, loop: LinkWatch.loopName)
      let watch = try LinkWatch((links, found.index), reports: reports) { _, _ in
        // The sockets themselves are asked what they are bound to.
        true
      } follow: {
        .gone
      } onLook: { [weak self] seen in
        if case .unknown = seen { return self?.noteUnwatched() ?? () }
        // A watch that was closed may still have been looking.
        self?.state.withLock { if $0.links === links { $0.seen = seen } }
        control.requestAttention()
      }
      state.withLock { $0.watch = watch }
    } catch {
      throw NetworkDeviceError(.system, "watching interface \(interface)", offered: error.description)
    }
  }

  private func noteUnwatched() {
    logger.warning(
      "the system does not say what becomes of the interface, which is looked at now and then",
      metadata: ["device": "packet \(interface)"])
  }

  /// Acts on what the interface has become: up or down, another MTU, gone.
  public func attend() async throws(NetworkDeviceError) {
    let (seen, socket) = state.withLock { state in
      defer { state.seen = nil }
      return (state.seen, state.sockets.first)
    }
    if case .gone = seen { throw NetworkDeviceError(losing: interface, errno: -ENODEV) }
    // An interface that was gone and is back has the same number, and the sockets hear nothing of it any more. Without news a
    // frame that was not taken has told, perhaps for want of a watch.
    try socket?.checkThatItIsBound()
    guard case .link(let link) = seen else { return }
    note(isUp: link.is_up && link.is_running)
    if link.mtu > 0 { note(mtu: Int(link.mtu)) }
  }

  private func note(isUp: Bool) {
    let control = state.withLock { state -> DeviceControl? in
      defer { state.isUp = isUp }
      return state.isUp == isUp ? nil : state.control
    }
    guard let control else { return }
    if isUp { return control.noteLink(.up) }
    control.noteLink(
      .down(
        cause: NetworkDeviceError(
          .linkDown, "interface \(interface)", offered: "it is down, or has no carrier",
          advice: "set it up (ip link set \(interface) up), and look at the other end of its wire")))
  }

  /// The limit of what the device offers.
  private static func offeredLimit(_ found: netdev_packet_interface) -> FrameLimit {
    FrameLimit(mtu: min(Int(found.mtu), largestMTU))
  }

  /// What is sent must fit the interface as it is now; what the device offers stays as it was.
  private func note(mtu: Int) {
    let (isNews, sockets, found) = state.withLock { state in
      defer { state.mtu = mtu }
      return (state.mtu != mtu, state.sockets, state.found)
    }
    let limit = min(FrameLimit(mtu: mtu).untagged, Self.offeredLimit(found).untagged)
    for socket in sockets { socket.counts.limit.store(limit, ordering: .relaxed) }
    guard isNews, mtu != Int(found.mtu) else { return }
    logger.warning(
      "the interface's MTU is not the device's: open it again",
      metadata: ["device": "packet \(interface)", "mtu": "\(mtu)", "offered": "\(found.mtu)"])
  }
}

// MARK: - The end

extension PacketDriver {
  /// Stops the queues, each on its loop. The kernel knows no buffer of the pool, so that this is all.
  public func reset(timeout: Duration) async throws(NetworkDeviceError) {
    let (queues, control) = state.withLock { ($0.queues, $0.control) }
    guard let control else { return }
    let deadline = LoopDeadline(control.loop, after: timeout)
    // What is left to close by then closes a little later.
    let last = LoopDeadline(control.loop, after: timeout.bounded + .milliseconds(250))
    state.withLock { $0.deadline = last }
    let stops = queues.map { reference in control.loop.call(on: reference.loop) { reference.queue.stop() } }
    for stop in stops {
      if case .value = await stop.value(within: deadline.remaining) { continue }
      throw NetworkDeviceError(
        .resetNotConfirmed, "resetting packet \(interface)",
        offered: "its loop did not answer within \(timeout.inUnits)",
        advice: "look for a job that blocks the loop")
    }
    state.withLock { $0.queues = [] }
  }

  /// Closes the sockets, side by side, and waits for that until a quarter of a second after the time of the reset. One that a queue still
  /// serves closes with that.
  public func shutDown() async {
    let (closings, deadline) = letGo()
    for closing in closings { _ = await closing.value(within: deadline?.remaining ?? .zero) }
  }

  /// Lets go of everything; each promise is kept when a socket has been closed.
  private func letGo() -> ([LoopPromise<Void>], LoopDeadline?) {
    let old = state.withLock { state in
      let old = state
      state = State(found: old.found, counts: old.counts)
      return old
    }
    for socket in old.sockets { socket.askForDrops() }
    old.watch?.close()
    guard let loop = old.control?.loop, old.queues.isEmpty else { return ([], nil) }
    return (old.sockets.map { $0.whenClosed(for: loop) }, old.deadline)
  }
}
