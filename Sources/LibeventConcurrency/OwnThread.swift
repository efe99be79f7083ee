internal import CNetdevSystem

/// A thread for one body, after which it ends. Whoever starts it waits for that, or lets it go: one of the two, once.
package struct OwnThread: Sendable {
  private let identity: UInt64

  /// What the thread takes with it.
  private final class Start: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Starts it; nil when there is none to be had, and then the body does not run. It has its creator's network namespace and
  /// rights.
  ///
  /// - Parameter name: as the kernel shows it, cut off behind 15 bytes.
  package init?(_ name: String, _ body: @escaping @Sendable () -> Void) {
    // The thread takes the reference, or else this does.
    let start = unsafe Unmanaged.passRetained(Start(body))
    var identity: UInt64 = 0
    let result = unsafe netdev_thread_start(
      &identity, name, -1,
      { context in
        guard let context = unsafe context else { return }
        unsafe Unmanaged<Start>.fromOpaque(context).takeRetainedValue().body()
      }, start.toOpaque())
    guard result == 0 else {
      unsafe start.release()
      return nil
    }
    self.identity = identity
  }

  /// Waits until the body has returned.
  package func join() { _ = netdev_thread_join(identity) }

  /// Nobody waits for it.
  package func detach() { _ = netdev_thread_detach(identity) }
}
