internal import Synchronization

/// The link of a device went down or came up.
public enum LinkChange: Sendable, Hashable {
  /// Nothing goes in or out. Packets are accepted as far as there is room, and wait.
  case down(cause: NetworkDeviceError)
  /// The device works again.
  case up
}

/// Knows a device's link and tells whoever listens.
///
/// The link is up while the device is there and says that it is. Of two reasons to be down the first is told, and the return
/// when neither is left.
final class LinkMonitor: Sendable {
  private let state = Mutex(State())
  private let onChange: @Sendable (LinkChange) -> Void

  private struct State {
    /// The device's own word.
    var saysUp = true
    var isLost = false
    var listeners = Listeners<LinkChange>()
    var isUp: Bool { saysUp && !isLost && !listeners.isFinished }
  }

  /// - Parameter onChange: told first, from whatever thread.
  init(_ onChange: @escaping @Sendable (LinkChange) -> Void) { self.onChange = onChange }

  /// True while the link is up.
  var isUp: Bool { state.withLock { $0.isUp } }

  /// The changes from now on, the last 64 of those that nobody fetched; ends with the device.
  func changes() -> AsyncStream<LinkChange> {
    Listeners.stream(keeping: 64) { listener in
      state.withLock { $0.listeners.add(listener) }
    } leave: { [weak self] number in
      self?.state.withLock { $0.listeners.remove(number) }
    }
  }

  /// The device says that its link has changed.
  func note(_ change: LinkChange) {
    apply(change) { state in if case .up = change { state.saysUp = true } else { state.saysUp = false } }
  }

  /// The device is lost.
  func lose(_ cause: NetworkDeviceError) { apply(.down(cause: cause)) { $0.isLost = true } }

  /// The device is back; its link is what it says.
  func regain() { apply(.up) { $0.isLost = false } }

  private func apply(_ change: LinkChange, _ body: (inout State) -> Void) {
    let listeners = state.withLock { state -> [AsyncStream<LinkChange>.Continuation]? in
      let wasUp = state.isUp
      body(&state)
      return state.isUp == wasUp ? nil : state.listeners.all
    }
    guard let listeners else { return }
    onChange(change)
    for listener in listeners { listener.yield(change) }
  }

  /// The device is closed.
  func finish() {
    let listeners = state.withLock { $0.listeners.finish() }
    for listener in listeners { listener.finish() }
  }
}
