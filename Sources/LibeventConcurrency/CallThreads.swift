internal import Synchronization

/// Threads for calls that may block. They are there only while there is something to call, and no more than so many at a time; calls
/// beyond that wait for one that is done with its own.
package final class CallThreads: Sendable {
  private struct State {
    var due: [@Sendable () -> Void] = []
    var threads = 0
    /// Of these: in the middle of a call.
    var calling = 0
  }

  private let state = Mutex(State())
  private let name: String
  private let most: Int

  /// - Parameters:
  ///   - name: the threads', as the kernel shows it.
  ///   - most: so many at a time.
  package init(_ name: String, most: Int) {
    self.name = name
    self.most = most
  }

  /// Whether there is a thread.
  var areThere: Bool { state.withLock { $0.threads > 0 } }

  /// Calls that wait for one.
  var due: Int { state.withLock { $0.due.count } }

  /// Adds a call; calls are begun in their order. From any thread.
  ///
  /// - Returns: false when there is no thread and none can be had. The call is due all the same: whoever comes next tries again.
  @discardableResult package func start(_ call: @escaping @Sendable () -> Void) -> Bool {
    state.withLock { $0.due.append(call) }
    return provide()
  }

  /// Sees to it that there are threads for what is due, as far as any can be had; false when there is none.
  @discardableResult func provide() -> Bool {
    let isWanted = state.withLock { state in
      guard state.due.count > state.threads - state.calling, state.threads < most else { return false }
      state.threads += 1
      return true
    }
    guard isWanted else { return true }
    if let thread = OwnThread(name, work) {
      thread.detach()
      return true
    }
    return state.withLock { state in
      state.threads -= 1
      return state.threads > 0
    }
  }

  /// Makes here what is due.
  func callHere() {
    state.withLock { $0.threads += 1 }
    work()
  }

  /// Makes the calls that are due; ends when there are none.
  @Sendable private func work() {
    while let call = state.withLock({ state -> (@Sendable () -> Void)? in
      guard !state.due.isEmpty else {
        state.threads -= 1
        return nil
      }
      state.calling += 1
      return state.due.removeFirst()
    }) {
      call()
      state.withLock { $0.calling -= 1 }
    }
  }
}
