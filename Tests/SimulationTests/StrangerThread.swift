import LibeventConcurrency

/// A thread that belongs to no world.
struct StrangerThread {
  private let thread: OwnThread

  init(_ body: @escaping @Sendable () -> Void) {
    guard let thread = OwnThread("stranger", body) else { preconditionFailure("no thread") }
    self.thread = thread
  }

  func join() { thread.join() }

  func detach() { thread.detach() }
}
