internal import Explorer

/// A loop as pools know it: something that sleeps and that can be woken. What waking is made of, `LoopModels` look into.
package final class LoopExecutor: Sendable {
  private let event: WakeUp
  /// Its number.
  package let identity: UInt

  /// A loop that sleeps on a wake-up of this name.
  package init(_ name: String, identity: UInt) {
    event = WakeUp("the wake-up of \(name)")
    self.identity = identity
  }

  /// Wakes it, now or when it sleeps next.
  package func wake() { event.signal() }

  /// Sleeps until it is woken; false when the model ends instead.
  package func sleep() -> Bool { event.wait() }
}
