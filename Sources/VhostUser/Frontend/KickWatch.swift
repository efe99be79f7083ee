internal import LibeventConcurrency
internal import Netdev
internal import Synchronization
internal import VirtioNet

/// Watches the doorbells of a device from its control loop, so that no back-end holds a queue's loop in one of them.
///
/// A loop that is found in the same system call twice, 50 ms apart, and whose counter has no room, is let out: within 100 ms of
/// the call. The pair then breaks. Nothing of this costs the doorbell a system call; and when nobody has rung for ten seconds,
/// the watch dozes until somebody does, who wakes it with one.
actor KickWatch {
  nonisolated let loop: LoopExecutor
  private nonisolated let pause: Duration
  /// So many looks at quiet doorbells, and it dozes.
  private nonisolated let patience: Int
  private nonisolated let doorbells = Mutex<[Doorbell]>([])
  private nonisolated let doze = Doze(dozing: true)
  /// Wakes it: this one is nobody else's.
  private nonisolated let alarm: Eventfd
  private var source: LoopSource?
  private var timer: LoopTimer?
  private var quietLooks = 0

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// - Parameter loop: the control loop, which rings none of the doorbells.
  /// - Throws: `system` when there is no descriptor left.
  init(
    loop: LoopExecutor, pause: Duration = .milliseconds(50), patience: Int = 200
  ) throws(NetworkDeviceError) {
    alarm = try Eventfd(for: "watching doorbells")
    self.loop = loop
    self.pause = pause
    self.patience = patience
  }

  /// Begins to watch what will be rung.
  func start() throws(NetworkDeviceError) {
    guard source == nil else { return }
    do throws(LoopError) {
      timer = try loop.makeTimer { [weak self] in self?.assumeIsolated { $0.look() } }
      source = try loop.makeSource(eventfd: alarm.descriptor, keeping: alarm) { [weak self] in
        self?.assumeIsolated { $0.wakeUp() }
      }
      source?.resume()
    } catch {
      throw NetworkDeviceError(.system, "watching doorbells", offered: "\(error)")
    }
  }

  /// Watches no more.
  func stop() {
    source?.cancel()
    source = nil
    timer?.cancel()
    timer = nil
    doorbells.withLock { $0 = [] }
  }

  // MARK: From any thread

  /// Watches these too.
  nonisolated func add(_ new: [Doorbell]) { doorbells.withLock { $0 += new } }

  /// Watches these no more.
  nonisolated func remove(_ old: [Doorbell]) {
    doorbells.withLock { all in all.removeAll { bell in old.contains { $0 === bell } } }
  }

  /// A doorbell is about to be rung, and has noted so.
  nonisolated func noteRing() {
    if doze.endsByRing() { alarm.signal() }
  }

  // MARK: On the loop

  // `Models/Sources/VhostUser/Scenery.swift` has a copy of `noteRing`, `wakeUp` and `look`, for one doorbell: a change of their
  // order is made there too.

  private func wakeUp() {
    quietLooks = 0
    timer?.schedule(after: pause)
  }

  private func look() {
    var isQuiet = true
    var stuck: [(bell: Doorbell, call: UInt64)] = []
    doorbells.withLock { watched in
      for bell in watched {
        switch bell.look() {
        case .quiet: break
        case .rung: isQuiet = false
        case .inside(let call): stuck.append((bell, call))
        }
      }
    }
    for (bell, call) in stuck { bell.letOut(of: call) }
    quietLooks = isQuiet && stuck.isEmpty ? quietLooks + 1 : 0
    if quietLooks >= patience, doze.begin(isQuiet: { doorbells.withLock { $0.allSatisfy { $0.isQuiet } } }) { return }
    timer?.schedule(after: pause)
  }
}
