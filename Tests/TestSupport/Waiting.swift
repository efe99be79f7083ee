package import Netdev
internal import LibeventConcurrency
internal import Synchronization

/// Lets a queue's loop turn at least so often.
package func turn(_ queue: NetworkQueue, times: UInt64) async {
  let scope = LoopScope(queue.loop)
  let start = await scope.run { _ in queue.loop.turn }
  while await scope.run({ _ in queue.loop.turn }) - start < times {}
}

/// What a task that was started came to, readable from outside while it runs.
package final class Outcome: Sendable {
  private let state = Mutex<(finished: Int, errors: [NetworkDeviceError])>((0, []))
  /// Nothing yet.
  package init() {}

  package var finished: Int { state.withLock { $0.finished } }
  package var errors: [NetworkDeviceError] { state.withLock { $0.errors } }

  package func record(_ body: () async throws -> Void) async {
    do {
      try await body()
      state.withLock { $0.finished += 1 }
    } catch {
      state.withLock {
        $0.finished += 1
        $0.errors.append(error as? NetworkDeviceError ?? NetworkDeviceError(.system, "\(error)"))
      }
    }
  }
}

/// Something that holds a loop until a test lets it go.
package final class Held: Sendable {
  private let state = Mutex((hasBegun: false, hasEnded: false))
  /// It holds nothing yet.
  package init() {}
  package var hasBegun: Bool { state.withLock { $0.hasBegun } }
  package func wait() {
    state.withLock { $0.hasBegun = true }
    while !state.withLock({ $0.hasEnded }) {}
  }
  package func end() { state.withLock { $0.hasEnded = true } }
}
