internal import Synchronization

/// Knows whether the device wants its program to announce itself, and tells whoever listens.
final class Announcements: Sendable {
  private let state = Mutex(State())

  private struct State {
    var isWanted = false
    var isFinished = false
    var nextListener = 0
    var listeners: [Int: AsyncStream<Void>.Continuation] = [:]
  }

  /// The requests from now on, and the one that nobody has acknowledged; those that nobody fetched are one.
  func requests() -> AsyncStream<Void> {
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    let (listener, isWanted) = state.withLock { state -> (Int?, Bool) in
      guard !state.isFinished else { return (nil, false) }
      state.nextListener += 1
      state.listeners[state.nextListener] = continuation
      return (state.nextListener, state.isWanted)
    }
    guard let listener else {
      continuation.finish()
      return stream
    }
    continuation.onTermination = { [weak self] _ in
      self?.state.withLock { _ = $0.listeners.removeValue(forKey: listener) }
    }
    if isWanted { continuation.yield() }
    return stream
  }

  /// Whether the device wants it now. A wish that is known already is no news.
  func note(isWanted: Bool) {
    let listeners = state.withLock { state -> [AsyncStream<Void>.Continuation] in
      guard state.isWanted != isWanted, !state.isFinished else { return [] }
      state.isWanted = isWanted
      return isWanted ? Array(state.listeners.values) : []
    }
    for listener in listeners { listener.yield() }
  }

  /// The device is closed.
  func finish() {
    let listeners = state.withLock { state in
      let listeners = Array(state.listeners.values)
      state.listeners = [:]
      state.isFinished = true
      return listeners
    }
    for listener in listeners { listener.finish() }
  }
}
