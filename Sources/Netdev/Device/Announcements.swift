internal import Synchronization

/// Knows whether the device wants its program to announce itself, and tells whoever listens.
final class Announcements: Sendable {
  private let state = Mutex(State())

  private struct State {
    var isWanted = false
    var listeners = Listeners<Void>()
  }

  /// The requests from now on, and the one that nobody has acknowledged; those that nobody fetched are one.
  func requests() -> AsyncStream<Void> {
    Listeners.stream(keeping: 1) { listener in
      let (number, isWanted) = state.withLock { ($0.listeners.add(listener), $0.isWanted) }
      if number != nil, isWanted { listener.yield() }
      return number
    } leave: { [weak self] number in
      self?.state.withLock { $0.listeners.remove(number) }
    }
  }

  /// Whether the device wants it now. A wish that is known already is no news.
  func note(isWanted: Bool) {
    let listeners = state.withLock { state -> [AsyncStream<Void>.Continuation] in
      guard state.isWanted != isWanted, !state.listeners.isFinished else { return [] }
      state.isWanted = isWanted
      return isWanted ? state.listeners.all : []
    }
    for listener in listeners { listener.yield() }
  }

  /// The device is closed.
  func finish() {
    let listeners = state.withLock { $0.listeners.finish() }
    for listener in listeners { listener.finish() }
  }
}
