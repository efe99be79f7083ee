internal import LibeventConcurrency
internal import Netdev

/// Waits, once, for a device to give back what a pair sent first: from the first doorbell on, so that an idle pair costs
/// nothing, and a pair that is known to be served neither. On the pair's loop.
final class ServiceWatch {
  private let timer: LoopTimer
  private let limit: Duration
  private var isRunning = false

  /// - Parameter onLimit: called on the loop when the time has passed.
  init(loop: LoopExecutor, limit: Duration, onLimit: @escaping () -> Void) throws(NetworkDeviceError) {
    self.limit = limit
    do throws(LoopError) {
      timer = try loop.makeTimer(handler: onLimit)
    } catch {
      throw NetworkDeviceError(.system, "makeQueue", offered: "\(error)")
    }
  }

  /// Waits no more.
  func end() { timer.cancel() }

  /// The pair's doorbell rang.
  func begin() {
    guard !isRunning else { return }
    isRunning = true
    timer.schedule(after: limit)
  }
}
