import CNetdevSystem

/// A thread with a body, joined by hand: what races needs more than a task on a shared pool.
@safe
package final class TestThread {
  private var identity: UInt64 = 0

  private final class Box {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Starts `body`; nil when the system has no thread to give.
  package init?(_ body: @escaping @Sendable () -> Void) {
    let context = unsafe Unmanaged.passRetained(Box(body)).toOpaque()
    let result = unsafe netdev_thread_start(
      &identity, "test", -1,
      { context in
        guard let context = unsafe context else { return }
        unsafe Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
      }, context)
    guard result == 0 else {
      unsafe Unmanaged<Box>.fromOpaque(context).release()
      return nil
    }
  }

  /// Waits until the body has returned.
  package func join() { _ = netdev_thread_join(identity) }
}
