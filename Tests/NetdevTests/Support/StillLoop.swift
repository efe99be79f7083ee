import LibeventConcurrency
import Netdev
import Synchronization
import TestSupport

/// A loop whose clock stands: no timer of it ever fires, and what happens there is brought about by jobs and wake-ups alone,
/// however slow the machine is.
enum StillLoop {
  private final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    func raise() { value.store(true, ordering: .releasing) }
    var isRaised: Bool { value.load(ordering: .acquiring) }
  }

  /// Lends a device of one queue pair on such a loop, and closes it. A task of its own turns the loop until nobody has anything
  /// left to do there: what the device hands over when the last reference to it goes is done as well.
  nonisolated(nonsending) static func withDevice(
    _ driver: any NetworkDriver, pool: PacketPool, _ body: nonisolated(nonsending) (NetworkDevice) async throws -> Void
  ) async throws {
    let loop = LoopExecutor(name: "still", backend: StillBackend())
    let isStopped = Flag()
    let turning = Task.detached {
      while true {
        let isLast = isStopped.isRaised
        if loop.turnOnce() { continue }
        if isLast { return }
        await Task.yield()
      }
    }
    let result: Result<Void, any Error>
    do {
      result = .success(try await lend(driver, pool, on: loop, body))
    } catch {
      result = .failure(error)
    }
    isStopped.raise()
    await turning.value
    try result.get()
  }

  /// Everything that holds the device ends with this function.
  private nonisolated(nonsending) static func lend(
    _ driver: any NetworkDriver, _ pool: PacketPool, on loop: LoopExecutor,
    _ body: nonisolated(nonsending) (NetworkDevice) async throws -> Void
  ) async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.loops = [loop]
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    try await body(device)
    try await device.close()
  }
}
