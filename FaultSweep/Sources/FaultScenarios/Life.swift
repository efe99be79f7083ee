import CFaultSupport
import Foundation
import LibeventConcurrency
import Logging
import NetdevDevices
import Synchronization

/// One life of a device: open, traffic both ways, loss and return, close. Whatever is refused in it ends in a typed error or
/// in a device that works, and nothing is left.
@MainActor final class Life {
  /// What came of it.
  struct Outcome {
    var words: [String] = []
    var violations: [String] = []
  }

  private let world: World
  private let tally = Tally()
  /// The phase in which calls are refused, `*` for all of them; nil in a life that is only to warm the process up.
  private let refusedPhase: String?
  private let isMeasured: Bool
  private(set) var outcome = Outcome()

  private static let resetTimeout = Duration.milliseconds(500)
  /// A look after the last work, and a wake-up for nothing now and then; a loop that spins has thousands in a moment.
  private static let mostIdleTurns: UInt64 = 1000
  /// Beyond `resetTimeout` and a second, for a machine that does other things.
  private static let patience = Duration.seconds(5)

  init(_ kind: Kind, refusedPhase: String?, isMeasured: Bool) {
    world = World(kind)
    self.refusedPhase = refusedPhase
    self.isMeasured = isMeasured
  }

  private func violate(_ what: String) { outcome.violations.append(what) }

  private func isRefused(in phase: String) -> Bool { refusedPhase == phase || refusedPhase == "*" }

  private func enter(_ phase: String) { if isMeasured { netdev_fault_phase(phase) } }

  /// Lives it.
  func live() async {
    world.begin()
    enter("open")
    await openAndUse()
    enter("after")
    // Where removing it was refused, nobody can.
    let isRefused = ProcessInfo.processInfo.environment["NETDEV_FAULT"]?.contains(":unlink@") == true
    if world.end(), !isRefused { violate("the socket's file is left") }
    outcome.violations += tally.violations
    if outcome.words.isEmpty { outcome.words = ["worked"] }
  }

  private func openAndUse() async {
    guard let devices = await open() else { return await checkQuiet("open") }
    let pool = devices[0].pool
    world.opened()
    await use(devices)
    // Read when nothing changes any more.
    let statistics = devices.map { $0.totalStatistics }
    let kept = statistics.reduce(0) { $0 + Int($1.quarantined + $1.driver.quarantined) }
    if kept > 0 {
      outcome.words.append("quarantined")
    }
    if !(await within(.seconds(3)) { pool.free + kept == pool.configuration.slots }) {
      violate("buffers: \(pool.free) free and \(kept) in quarantine of \(pool.configuration.slots)")
    }
  }

  private func open() async -> [NetworkDevice]? {
    var configuration = NetworkDevice.Configuration()
    configuration.resetTimeout = Self.resetTimeout
    configuration.logger.logLevel = ProcessInfo.processInfo.environment["NETDEV_LOG"] == nil ? .critical : .debug
    let urls = world.urls
    let opening = Opened()
    Task { [configuration] in
      let result: Result<[NetworkDevice], NetworkDeviceError>
      do throws(NetworkDeviceError) {
        result = .success(try await NetworkDevice.open(urls, configuration: configuration))
      } catch {
        result = .failure(error)
      }
      opening.state.withLock { $0 = result }
    }
    guard await within(.seconds(15), { opening.state.withLock { $0 != nil } }) else {
      violate("open never ends")
      return nil
    }
    switch opening.state.withLock({ $0.take() }) {
    case .success(let devices): return devices
    case .failure(let error):
      outcome.words.append("open: \(error.code)")
      if refusedPhase == nil || netdev_fault_fired() == 0 { violate("it does not open: \(error)") }
    case nil: break
    }
    return nil
  }

  private func use(_ devices: [NetworkDevice]) async {
    let traffic = Traffic(world, devices, tally)
    let servers: Int
    do { servers = try traffic.serve() } catch { return violate("no station: \(error)") }
    await checkQuiet("open")

    enter("traffic")
    _ = await traffic.exchange(16, within: .seconds(isRefused(in: "traffic") ? 1 : 4))
    await checkQuiet("traffic")

    enter("loss")
    world.lose()
    if world.hasSwitch || world.kind == .tapDeleted {
      _ = await within(.milliseconds(200)) { devices.contains { !$0.isLinkUp } || !tally.ends.isEmpty }
    }
    _ = await traffic.exchange(1, within: .milliseconds(20))
    await checkQuiet("loss")

    enter("return")
    world.restore()
    if world.kind != .tapDeleted {
      _ = await traffic.exchange(8, within: .seconds(isRefused(in: "return") ? 1 : 4))
    }
    await checkQuiet("return")

    // What has not ended works: nothing is refused any more, or what always was can be done without.
    enter("settled")
    if world.kind == .tapDeleted {
      // Lost for good: the one right outcome is an end, whatever is refused on the way to it.
      if !(await within(.seconds(6)) { !tally.ends.isEmpty }) { violate("nobody is told that the interface is gone") }
    } else if tally.ends.isEmpty, await traffic.exchange(4, within: .seconds(6)) < 4, tally.ends.isEmpty {
      violate("deaf: no error, and no frame comes back")
    }
    if !tally.ends.isEmpty {
      outcome.words.append("ended: \(tally.ends[0])")
      let isDue = world.kind == .tapDeleted && tally.ends[0] == "notFound"
      if tally.ends[0] == "end" || refusedPhase == nil && !isDue { violate("it ends by itself: \(tally.ends)") }
    }

    let idle = devices.flatMap { $0.queues }.map { $0.loop.statistics.idleTurns }.max() ?? 0
    if idle > Self.mostIdleTurns { violate("a loop turned \(idle) times for nothing") }

    enter("close")
    await close(devices)
    if !(await within(Self.patience) { tally.ends.count == servers }) { violate("run or forward never ends") }
    if !(await within(Self.patience) { tally.unfinishedSends == 0 }) {
      violate("\(tally.unfinishedSends) sends never end")
    }
    await checkQuiet("close")
  }

  private func close(_ devices: [NetworkDevice]) async {
    let counter = Counter(devices.count)
    let errors = Tally()
    for device in devices {
      Task {
        do throws(NetworkDeviceError) { try await device.close() } catch { errors.noteEnd(error) }
        counter.state.withLock { $0 -= 1 }
      }
    }
    if !(await within(Self.resetTimeout + .seconds(1) + Self.patience) { counter.state.withLock { $0 == 0 } }) {
      violate("close takes longer than it may")
    }
    if let code = errors.ends.first { outcome.words.append("close: \(code)") }
  }

  /// With nothing to do, nothing is done: a process that uses a third of a CPU, twice in a row, turns for nothing.
  private func checkQuiet(_ phase: String) async {
    guard isMeasured, isRefused(in: phase) else { return }
    var shares: [Int64] = []
    for _ in 0..<2 {
      let (clock, used) = (ContinuousClock.now, fault_used_cpu())
      try? await Task.sleep(for: .milliseconds(60))
      let passed = (ContinuousClock.now - clock).components.attoseconds / 1_000_000_000_000
      shares.append((fault_used_cpu() - used) * 100 / max(passed, 1))
      if shares.last ?? 0 < 30 { return }
    }
    violate("it spins in \(phase): \(shares) % of a CPU")
  }
}

/// What a task leaves for the scenario.
private final class Opened: Sendable {
  let state = Mutex<Result<[NetworkDevice], NetworkDeviceError>?>(nil)
}

private final class Counter: Sendable {
  let state: Mutex<Int>
  init(_ count: Int) { state = Mutex(count) }
}
