internal import CNetdevSystem
internal import LibeventConcurrency
internal import Netdev
internal import PacketFormats

/// One queue pair of an interface: a packet socket, served on its loop.
///
/// Frames are copied between the pool's buffers and the rings. A buffer to transmit is nevertheless the driver's until the kernel
/// says that the frame has left (its slot is available again): that is what `send` waits for, and what holds senders back when
/// the interface is slower than they are.
@safe final class PacketQueue: QueueDriver {
  /// A queue that its driver remembers.
  struct Reference: @unchecked Sendable {
    // Proof of Sendable: `queue` is used in calls on `loop` only, which is the loop it belongs to.
    let queue: PacketQueue
    let loop: LoopExecutor
  }

  let transmitCapacity: Int
  let interface: String
  /// What other threads may look at.
  let shared: PacketCounts
  let slots: SlotTable
  let signal: QueueSignal
  /// One limit for both ways.
  let limit: FrameLimit
  /// The interface may be gone.
  let onTrouble: () -> Void
  /// The socket with its rings, until the queue stops.
  @safe @exclusivity(unchecked) var rings: PacketRings?
  @safe @exclusivity(unchecked) var counts = QueueDriverStatistics()

  // Transmission. Positions count on for ever: those up to `head` have been released, up to `taken` the kernel has them, and
  // up to `tail` they are published.
  @safe @exclusivity(unchecked) var head = 0
  @safe @exclusivity(unchecked) var taken = 0
  @safe @exclusivity(unchecked) var tail = 0
  /// The frames in the transmit ring, by place.
  let shadow: UnsafeMutablePointer<FrameEntry>
  private let placeMask: Int
  /// Stands for a frame that was released before one in front of it.
  static let gone = FrameEntry(rawValue: .max)
  /// Frames to be given back that are in the ring no more: dropped, or released when it went.
  @safe @exclusivity(unchecked) var finished: [FrameEntry] = []
  /// The kernel has told of frames that have left: perhaps not the first ones.
  @safe @exclusivity(unchecked) var wasTold = false
  /// The kernel takes nothing for now.
  @safe @exclusivity(unchecked) var isBlocked = false
  var pause: RetryPause?
  @safe @exclusivity(unchecked) var patience = PacketPatience()

  // Reception.
  @safe @exclusivity(unchecked) var nextReceived = 0
  /// Empty buffers, and how many there are.
  let posted: UnsafeMutablePointer<UInt32>
  @safe @exclusivity(unchecked) var postedCount = 0

  // Notifications. A source that is not wanted is suspended when it fires, and not before: most of the time it does not.
  private var readable: Watched?
  @safe @exclusivity(unchecked) var vainWakes = VainWakes()
  private var isResting = false
  var rest: RetryPause?
  private var releases: Watched?

  /// Takes the rings over.
  init(
    _ rings: PacketRings, limit: FrameLimit, capacity: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal,
    onTrouble: @escaping () -> Void
  ) throws(NetworkDeviceError) {
    let socket = rings.socket
    interface = socket.interface
    shared = socket.counts
    self.rings = rings
    self.limit = limit
    self.slots = slots
    self.signal = signal
    self.onTrouble = onTrouble
    transmitCapacity = capacity
    placeMask = rings.transmitSlots - 1
    unsafe shadow = .allocate(capacity: rings.transmitSlots)
    unsafe shadow.initialize(repeating: Self.gone, count: rings.transmitSlots)
    unsafe posted = .allocate(capacity: capacity)
    unsafe posted.initialize(repeating: 0, count: capacity)
    do throws(LoopError) {
      readable = try Watched(loop, socket.descriptor) { [weak self] in self?.becameReadable($0) }
      releases = try Watched(loop, socket.releases) { [weak self] in self?.toldOfReleases($0) }
      pause = try RetryPause(loop: loop) { [weak self] in self?.tryAgain() }
      rest = try RetryPause(loop: loop) { [weak self] in self?.endRest() }
    } catch {
      // The sources end before the socket may.
      stop()
      throw NetworkDeviceError(
        .system, "watching queue \(socket.index) of interface \(socket.interface)", offered: error.description)
    }
  }

  deinit {
    unsafe shadow.deallocate()
    unsafe posted.deallocate()
  }

  var statistics: QueueDriverStatistics { counts }

  /// Nothing goes in or out any more, and the socket is left to the driver. On the loop; idempotent.
  func stop() {
    readable?.cancel()
    releases?.cancel()
    pause?.cancel()
    rest?.cancel()
    (readable, releases, pause, rest) = (nil, nil, nil, nil)
    if let rings { finishReleased(rings) }
    rings = nil
  }

  // MARK: Notifications

  private func becameReadable(_ isWanted: Bool) {
    guard let rings else { return }
    if unsafe !netdev_packet_has_frame(rings.receiveSlot(nextReceived)) {
      // An error that the kernel has noted makes it readable too: the interface went down or away, and its link tells which.
      if netdev_packet_error(rings.socket.descriptor) < 0 { onTrouble() }
      vainWakes.note()
    }
    guard isWanted else { return }
    counts.interrupts &+= 1
    signal.interrupt()
  }

  private func watchForFrames() {
    guard !isResting else { return }
    guard vainWakes.areTooMany else { return readable?.want() ?? () }
    isResting = true
    rest?.begin(doubled: VainWakes.doublings)
  }

  private func endRest() {
    isResting = false
    vainWakes.forgiveLast()
    signal.interrupt()
  }

  private func toldOfReleases(_ isWanted: Bool) {
    guard let rings else { return }
    takeReleaseEvents(rings)
    guard isWanted else { return }
    counts.interrupts &+= 1
    signal.interrupt()
  }

  private func takeReleaseEvents(_ rings: PacketRings) {
    guard netdev_packet_take_releases(rings.socket.releases) > 0 else { return }
    wasTold = true
    isBlocked = false
  }

  private func tryAgain() {
    isBlocked = false
    signal.interrupt()
  }

  func arm(received: Bool, released: ReleaseInterrupt) -> Bool {
    guard let rings else { return false }
    if received, postedCount > 0 {
      if unsafe netdev_packet_has_frame(rings.receiveSlot(nextReceived)) { return true }
      // A descriptor that is ready already makes its source fire at once: there is no need to look again.
      watchForFrames()
    }
    let wantsReleases = released != .never && (tail != head || !finished.isEmpty)
    guard wantsReleases || taken != tail else { return false }
    let wasBlocked = isBlocked
    // What is told from here on is told by the source.
    takeReleaseEvents(rings)
    if wasBlocked != isBlocked || (wantsReleases && hasReleased(rings)) { return true }
    releases?.want()
    return false
  }

  func disarm() {
    readable?.unwant()
    releases?.unwant()
  }

  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    for entry in finished { transmitted(entry) }
    finished = []
    while head < tail {
      let entry = unsafe shadow[place(head)]
      if entry != Self.gone { transmitted(entry) }
      head += 1
    }
    taken = tail
    for position in 0..<postedCount { posted(unsafe self.posted[position]) }
    postedCount = 0
  }

  /// Where a position's entry is in the shadow table.
  @inline(__always) func place(_ position: Int) -> Int { position & placeMask }
}

/// A source that tells once each time it is wanted. It goes on watching when it has told, until it fires and nobody wants it:
/// most of the time it is wanted again before that, and nothing has to be said to the system.
private final class Watched {
  private var source: LoopSource?
  private let state: State

  private final class State {
    var isWanted = false
    var isWatching = false
    weak var source: LoopSource?
  }

  /// - Parameter handler: told whether it is wanted.
  init(_ loop: LoopExecutor, _ descriptor: CInt, handler: @escaping (Bool) -> Void) throws(LoopError) {
    let state = State()
    self.state = state
    let source = try loop.makeSource(descriptor: descriptor, readiness: .readable) {
      let isWanted = state.isWanted
      state.isWanted = false
      if !isWanted {
        state.isWatching = false
        state.source?.suspend()
      }
      handler(isWanted)
    }
    state.source = source
    self.source = source
  }

  func want() {
    state.isWanted = true
    guard !state.isWatching else { return }
    state.isWatching = true
    source?.resume()
  }

  func unwant() { state.isWanted = false }

  func cancel() {
    source?.cancel()
    source = nil
  }
}
