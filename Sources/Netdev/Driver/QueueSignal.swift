/// How a driver calls its queue: a value, usable on the queue's loop until the device is shut down.
@safe public struct QueueSignal {
  private let target: SignalTarget
  private var watcher: (any QueueSignalWatcher)?

  init(_ target: SignalTarget) { self.target = target }

  /// The device interrupted: the queue looks at its rings in the next turn. Spurious calls are harmless. On the loop.
  public func interrupt() {
    watcher?.willInterrupt()
    target.withTurn { $0.noteInterrupt() }
  }

  /// The device broke the protocol or asked for a reset: the queue is broken. On the loop.
  public func fail(_ error: NetworkDeviceError) {
    watcher?.willFail(error)
    target.withTurn { $0.breakQueue(error) }
  }

  /// A frame in flight will never be released: it fails, and whoever waits for it is told. On the loop.
  public func fail(_ entry: FrameEntry, _ error: NetworkDeviceError) {
    watcher?.willFail(entry, error)
    target.withTurn { $0.failInFlight(entry, error) }
  }

  /// An empty buffer that was posted, or the first one of a frame that is not handed on, goes back to the pool. On the loop.
  public func giveBack(_ slot: UInt32) {
    watcher?.willGiveBack(slot)
    target.withTurn { $0.takeBack(slot) }
  }

  /// The same signal, which tells `watcher` first: for a driver around another driver (a decorator that counts, checks or
  /// records), which makes the inner queue with it. The signal keeps the watcher; the watcher must not keep the signal.
  public func watched(by watcher: any QueueSignalWatcher) -> QueueSignal {
    var signal = self
    signal.watcher = watcher
    return signal
  }
}

/// Where the signals of a driver's part go: nowhere until the queue of it has been made, and nowhere when that has gone.
@safe final class SignalTarget {
  // Proof: touched on the queue's loop, and cleared by what it names as its last act. Unmanaged, so that a signal retains nothing.
  @safe @exclusivity(unchecked) var turn: Unmanaged<QueueTurn>?

  @inline(__always) func withTurn(_ body: (QueueTurn) -> Void) { unsafe turn?._withUnsafeGuaranteedRef { body($0) } }
}

/// Sees what a driver tells its queue, just before the queue does. Called wherever the driver calls, which should be the
/// queue's loop.
public protocol QueueSignalWatcher: AnyObject {
  /// The device interrupted.
  func willInterrupt()
  /// The queue breaks.
  func willFail(_ error: NetworkDeviceError)
  /// One frame in flight fails.
  func willFail(_ entry: FrameEntry, _ error: NetworkDeviceError)
  /// A posted buffer goes back to the pool.
  func willGiveBack(_ slot: UInt32)
}
