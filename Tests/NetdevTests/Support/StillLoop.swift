import LibeventConcurrency
import Netdev
import Synchronization

/// A loop whose clock stands: no timer of it ever fires, and what happens there is brought about by jobs and wake-ups alone,
/// however slow the machine is. A task of its own turns it until it is stopped.
final class StillLoop: Sendable {
  let loop: LoopExecutor
  private let isStopped: Flag
  private let turning: Task<Void, Never>

  private final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    func raise() { value.store(true, ordering: .releasing) }
    var isRaised: Bool { value.load(ordering: .acquiring) }
  }

  init() {
    let loop = LoopExecutor(name: "still", backend: StillBackend())
    let flag = Flag()
    self.loop = loop
    isStopped = flag
    turning = Task.detached {
      while !flag.isRaised { if !loop.turnOnce() { await Task.yield() } }
    }
  }

  /// Opens a device of one queue pair on this loop.
  func open(_ driver: any NetworkDriver) async throws -> NetworkDevice {
    var configuration = NetworkDevice.Configuration()
    configuration.loops = [loop]
    return try await NetworkDevice.open(driver: driver, configuration: configuration)
  }

  /// When everything on it is closed.
  func stop() async {
    isStopped.raise()
    await turning.value
  }
}

/// Nothing is ever ready, and it is always the same time.
private final class StillBackend: LoopBackend {
  final class Event: LoopBackendEvent {
    func arm(afterNanoseconds: UInt64) {}
    func disarm() {}
    func cancel() {}
  }

  var now: UInt64 { 1 }
  func poll() {}
  func wait() {}
  func wake() {}
  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent { Event() }
  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent { Event() }
}
