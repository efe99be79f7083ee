internal import CNetdevSystem
internal import CSimulation
internal import Glibc
public import LibeventConcurrency
public import Virtio

/// A vhost-user back-end in a world, honest and mortal: what is behind a device `vhost-user:PATH`.
///
/// It is a process of the world, with a loop of its own, that listens on the socket or, where the device listens, knocks until it is
/// let in. It keeps to the protocol and maps what it is shown; what it does with the rings the script says, as with `LyingDevice`:
///
/// ```swift
/// let peer = try VhostUserPeer(world, path: "peer")
/// peer.whenDriven = { pair in pair.whenKicked = { $0.loopBack() }; pair.loopBack() }
/// peer.begin()
/// let device = try await world.open("vhost-user:peer")
/// …
/// peer.exit()    // the process ends, and what it had mapped with it
/// peer.begin()   // another one takes its place
/// ```
///
/// `end` when the test is over. Used by the tasks of its world.
public final class VhostUserPeer: @unchecked Sendable {
  // Proof of Sendable: everything is touched on the world's thread, which `isHere` checks.

  /// What it offers.
  public struct Configuration: Sendable {
    /// Features of the device.
    public var features: FeatureSet = [.version1, .mrgRxbuf, .indirectDesc, .eventIndex, .mtu]
    /// Queue pairs.
    public var queuePairs = 1
    /// The bits of the protocol's own features (the vhost-user document's "Protocol features"): MQ, REPLY_ACK, BACKEND_REQ,
    /// CONFIG, CONFIGURE_MEM_SLOTS and STATUS.
    public var protocolFeatures: UInt64 = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 15 | 1 << 16
    /// It listens; else it connects to whoever does.
    public var listens = true
    /// The process lives on when the driver hangs up; else it exits, and another one begins.
    public var survives = true

    /// The defaults.
    public init() {}
  }

  /// The socket's path.
  public let path: String
  /// What it offers to whoever connects from now on.
  public var configuration: Configuration {
    get { mayRead ? offered : Configuration() }
    set { if isHere { offered = newValue } }
  }
  /// Called on its loop when a pair's rings are there and the driver has said DRIVER_OK.
  public var whenDriven: ((LyingPair) -> Void)? {
    get { mayRead ? onDriven : nil }
    set { if isHere { onDriven = newValue } }
  }
  /// Called on its loop when it hangs up and lives on, with the pairs that it drove until then: what the driver had given it, it may
  /// still write to until its process exits.
  public var whenHungUp: (([LyingPair]) -> Void)? {
    get { mayRead ? onHungUp : nil }
    set { if isHere { onHungUp = newValue } }
  }
  /// The link as its configuration has it; who knows CONFIG is told of a change.
  public var isLinkUp: Bool { mayRead && hasLink }

  private var offered: Configuration
  private var onDriven: ((LyingPair) -> Void)?
  private var onHungUp: (([LyingPair]) -> Void)?
  private var hasLink = true
  let world: SimulatedWorld
  let loop: LoopExecutor
  private let scope: LoopScope
  private var life: PeerLife?
  private var isOver = false

  /// A peer that `begin` brings to life.
  ///
  /// - Throws: `LoopError` without a loop, and elsewhere than in the world.
  public init(
    _ world: SimulatedWorld, path: String, configuration: Configuration = Configuration()
  ) throws(LoopError) {
    guard world.schedule.expectHere("makes a peer of the world's") else { throw .notOnLoop("VhostUserPeer.init") }
    self.world = world
    self.path = path
    offered = configuration
    loop = try LoopExecutor(name: "peer")
    scope = LoopScope(loop)
    world.spareFaults(of: loop)
  }

  private var isHere: Bool { world.schedule.expectHere("uses the peer at \(path)") }
  private var mayRead: Bool { world.schedule.mayRead("uses the peer at \(path)") }
}

// MARK: - Lives

extension VhostUserPeer {
  /// A process begins that listens, or knocks; the one before has exited, or does now.
  public func begin() {
    onLoop { peer in
      guard !peer.isOver else { return }
      peer.life?.exit()
      peer.world.note("the peer begins")
      peer.life = PeerLife(peer)
    }
  }

  /// The process exits, in the middle of whatever it does.
  public func exit() {
    onLoop { peer in
      guard let life = peer.life else { return }
      peer.world.note("the peer exits")
      life.exit()
      peer.life = nil
    }
  }

  /// It hangs up and lives on: it listens, or knocks again.
  public func hangUp() {
    onLoop { peer in
      peer.world.note("the peer hangs up")
      peer.life?.hangUp()
    }
  }

  /// It hangs up for good, and exits that much later; another one may begin meanwhile.
  public func hangUp(exitingAfter time: Duration) {
    onLoop { peer in
      guard let life = peer.life else { return }
      peer.world.note("the peer hangs up for good")
      peer.life = nil
      life.linger(time)
    }
  }

  /// Changes the link, and says so.
  public func setLink(isUp: Bool) {
    onLoop { peer in
      guard peer.hasLink != isUp else { return }
      peer.world.note("the peer's link is \(isUp ? "up" : "down")")
      peer.hasLink = isUp
      peer.life?.connection?.noteConfigChange()
    }
  }

  /// Reports an error of a pair's rings: the device is to be reset.
  public func reportError(pair index: Int = 0) {
    onLoop { peer in
      peer.world.note("the peer reports an error")
      peer.life?.connection?.reportError(pair: index)
    }
  }

  /// Runs a piece of the script on a pair's rings, on its loop; nil when nobody drives them.
  @discardableResult public func perform<Result: Sendable>(
    pair index: Int = 0, _ body: @Sendable (LyingPair) -> Result
  ) async -> Result? {
    guard isHere else { return nil }
    return await scope.run { _ in self.life?.connection?.pairs[index].map(body) }
  }

  /// Exits, for good.
  public func end() {
    guard isHere else { return }
    isOver = true
    exit()
    whenDriven = nil
    whenHungUp = nil
  }

  private func onLoop(_ body: @escaping (VhostUserPeer) -> Void) {
    guard isHere else { return }
    let call = Call(body)
    loop.execute { call.body(self) }
  }

  private struct Call: @unchecked Sendable {
    // Proof of Sendable: made and called on the world's thread.
    let body: (VhostUserPeer) -> Void
    init(_ body: @escaping (VhostUserPeer) -> Void) { self.body = body }
  }
}

// MARK: - One life

/// One process of a peer's, from its beginning to its exit. On the peer's loop.
final class PeerLife {
  private let peer: VhostUserPeer
  private let process: CInt
  private var listener: CInt = -1
  private var file = netdev_file()
  private var source: LoopSource?
  private var knocking: LoopTimer?
  private(set) var connection: PeerConnection?
  private var isOver = false

  init(_ peer: VhostUserPeer) {
    self.peer = peer
    process = simulated_process_begin()
    if peer.configuration.listens { listen() } else { knock() }
  }

  private func listen() {
    listener = unsafe netdev_unix_listen(peer.path, &file)
    guard listener >= 0 else { return peer.world.find("the peer cannot listen: \(listener)") }
    simulated_process_listens(process, listener)
    source = try? peer.loop.makeSource(descriptor: listener, readiness: .readable) { [weak self] in self?.accept() }
    source?.resume()
  }

  private func accept() {
    let accepted = netdev_unix_accept(listener)
    guard accepted >= 0 else { return }
    // Who connects anew has done with what was before.
    connection?.close()
    serve(accepted)
  }

  private func knock() {
    guard !isOver, connection == nil else { return }
    let connected = unsafe simulated_process_connect(process, peer.path)
    if connected >= 0 { return serve(connected) }
    if knocking == nil { knocking = try? peer.loop.makeTimer { [weak self] in self?.knock() } }
    knocking?.schedule(after: .microseconds(200 + peer.world.choose(below: 20_000)))
  }

  private func serve(_ descriptor: CInt) {
    peer.world.note("the peer is connected")
    connection = PeerConnection(peer, descriptor) { [weak self] in self?.noteEnd() }
  }

  /// The driver has hung up.
  private func noteEnd() {
    peer.world.note("the peer is left")
    connection = nil
    if !peer.configuration.survives { return peer.begin() }
    if !peer.configuration.listens { knock() }
  }

  func hangUp() {
    tellHungUp()
    connection?.close()
    connection = nil
    if !peer.configuration.listens { knock() }
  }

  private func tellHungUp() {
    guard let connection else { return }
    peer.whenHungUp?(connection.pairs.sorted { $0.key < $1.key }.map { $0.value })
  }

  /// Does nothing any more, and exits later.
  func linger(_ time: Duration) {
    tellHungUp()
    leave()
    guard let timer = try? peer.loop.makeTimer(handler: { [self] in exitNow() }) else { return exitNow() }
    knocking = timer
    timer.schedule(after: time)
  }

  func exit() {
    leave()
    exitNow()
  }

  private func leave() {
    guard !isOver else { return }
    isOver = true
    connection?.close()
    connection = nil
    source?.cancel()
    knocking?.cancel()
    knocking = nil
    if listener >= 0 { unsafe netdev_unix_close_listener(listener, peer.path, file) }
  }

  private func exitNow() {
    peer.world.note("process \(process) exits")
    simulated_process_exit(process)
    knocking?.cancel()
    knocking = nil
  }
}
