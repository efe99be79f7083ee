import CNetdevSystem

/// A thread that belongs to no world.
struct StrangerThread {
  private final class Start: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  private let thread: UInt64

  init(_ body: @escaping @Sendable () -> Void) {
    var thread: UInt64 = 0
    let start = unsafe Unmanaged.passRetained(Start(body)).toOpaque()
    let result = unsafe netdev_thread_start(
      &thread, "stranger", -1,
      { context in
        guard let context = unsafe context else { return }
        unsafe Unmanaged<Start>.fromOpaque(context).takeRetainedValue().body()
      }, start)
    precondition(result == 0, "no thread")
    self.thread = thread
  }

  func join() { _ = netdev_thread_join(thread) }

  func detach() { _ = netdev_thread_detach(thread) }
}
