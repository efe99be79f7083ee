internal import Synchronization

/// The link of a device went down or came up.
public enum LinkChange: Sendable, Hashable {
  /// Nothing goes in or out. Packets are accepted as far as there is room, and wait.
  case down(cause: NetworkDeviceError)
  /// The device works again.
  case up
}

/// Knows a device's link and tells whoever listens.
final class LinkMonitor: Sendable {
  private let state = Mutex(State())

  private struct State {
    var isUp = true
    var isFinished = false
    var nextListener = 0
    var listeners: [Int: AsyncStream<LinkChange>.Continuation] = [:]
  }

  /// True while the link is up.
  var isUp: Bool { state.withLock { $0.isUp } }

  /// The changes from now on, the last 64 of those that nobody fetched; ends with the device.
  func changes() -> AsyncStream<LinkChange> {
    let (stream, continuation) = AsyncStream.makeStream(of: LinkChange.self, bufferingPolicy: .bufferingNewest(64))
    let listener = state.withLock { state -> Int? in
      guard !state.isFinished else { return nil }
      state.nextListener += 1
      state.listeners[state.nextListener] = continuation
      return state.nextListener
    }
    guard let listener else {
      continuation.finish()
      return stream
    }
    continuation.onTermination = { [weak self] _ in
      self?.state.withLock { _ = $0.listeners.removeValue(forKey: listener) }
    }
    return stream
  }

  func note(_ change: LinkChange) {
    let listeners = state.withLock { state in
      if case .up = change { state.isUp = true } else { state.isUp = false }
      return Array(state.listeners.values)
    }
    for listener in listeners { listener.yield(change) }
  }

  /// The device is closed.
  func finish() {
    let listeners = state.withLock { state in
      let listeners = Array(state.listeners.values)
      state.listeners = [:]
      state.isFinished = true
      state.isUp = false
      return listeners
    }
    for listener in listeners { listener.finish() }
  }
}
