import Netdev
import Synchronization

/// What tasks of a scenario have to say to it, from wherever they run.
final class Tally: Sendable {
  private struct State {
    var newest: UInt32 = 0
    var returned = 0
    var unfinishedSends = 0
    var ends: [String] = []
    var violations: [String] = []
  }
  private let state = Mutex(State())

  /// Frames that have come back.
  var returned: Int { state.withLock { $0.returned } }
  /// The newest of them.
  var newest: UInt32 { state.withLock { $0.newest } }
  /// Sends that have neither returned nor thrown.
  var unfinishedSends: Int { state.withLock { $0.unfinishedSends } }
  /// How the tasks that serve the device have ended, as far as they have.
  var ends: [String] { state.withLock { $0.ends } }
  var violations: [String] { state.withLock { $0.violations } }

  func noteReturned(_ number: UInt32) {
    state.withLock { state in
      state.returned += 1
      state.newest = max(state.newest, number)
    }
  }

  func beginSend() { state.withLock { $0.unfinishedSends += 1 } }
  func finishSend() { state.withLock { $0.unfinishedSends -= 1 } }

  /// A task that serves the device is over: by an error of ours, by cancellation, or because the device was closed.
  func noteEnd(_ error: (any Error)?) {
    state.withLock { state in
      switch error {
      case nil: state.ends.append("end")
      case let error as NetworkDeviceError: state.ends.append("\(error.code)")
      case is CancellationError: state.ends.append("cancelled")
      case .some(let error): state.violations.append("an error without a type: \(error)")
      }
    }
  }

  func complain(_ violation: String) { state.withLock { $0.violations.append(violation) } }
}

/// Waits for a condition; false when the time is over.
@MainActor func within(_ limit: Duration, _ condition: () -> Bool) async -> Bool {
  let end = ContinuousClock.now + limit
  while !condition() {
    guard ContinuousClock.now < end else { return false }
    try? await Task.sleep(for: .microseconds(300))
  }
  return true
}
