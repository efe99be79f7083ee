internal import Synchronization

/// Whether a `KickWatch` sleeps until somebody rings, between the loops that ring and the watch.
///
/// Who rings notes it in its doorbell and then looks here; the watch says here that it dozes and then looks at the doorbells. All of
/// that is sequentially consistent, so one of the two sees the other.
///
/// `Models/Sources/VhostUser` runs this file and `Doorbell.swift` in every order that the memory model allows.
struct Doze: ~Copyable, Sendable {
  private let isDozing: Atomic<Bool>

  init(dozing: Bool) { isDozing = Atomic(dozing) }

  /// A doorbell is about to be rung, and has noted so. True when whoever asks is the one to wake the watch.
  borrowing func endsByRing() -> Bool {
    isDozing.load(ordering: .sequentiallyConsistent) && isDozing.exchange(false, ordering: .sequentiallyConsistent)
  }

  /// On the watch's loop: it dozes from now on, if nobody has rung meanwhile who may not have seen that it does.
  borrowing func begin(isQuiet: () -> Bool) -> Bool {
    isDozing.store(true, ordering: .sequentiallyConsistent)
    // Those of now: one that has come since the look may be inside already.
    if isQuiet() { return true }
    // Whoever has seen it is waking it already: the alarm does what this look would.
    return !isDozing.exchange(false, ordering: .sequentiallyConsistent)
  }
}
