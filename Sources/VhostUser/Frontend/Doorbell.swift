internal import CNetdevSystem
internal import Glibc
internal import Netdev
internal import Synchronization
internal import VirtioNet

/// The eventfd of a ring's kicks, which the back-end holds too, and a note of what its loop is doing with it.
///
/// The flags of an eventfd belong to everybody who holds it. A back-end that clears O_NONBLOCK and fills the counter makes our
/// next `write` wait for as long as it likes, and the loop with it. To ask before each write would cost a system call and prove
/// nothing; so the loop notes that it writes, and a `KickWatch` on another loop reads the notes.
final class Doorbell: Sendable {
  private let event: Eventfd
  /// Odd while the loop is in the system call; every ring adds two.
  private let progress = Atomic<UInt64>(0)
  /// The back-end has blocked it: it is not rung again.
  private let isBlocked = Atomic<Bool>(false)
  /// What the watch has seen of `progress`; its own.
  private let seen = Atomic<UInt64>(0)

  init(for name: String) throws(NetworkDeviceError) { event = try Eventfd(for: name) }

  /// For the message that hands it to the back-end.
  var descriptor: CInt { event.descriptor }

  // MARK: On the pair's loop

  /// Rings. False when the back-end has blocked the bell.
  func ring(_ watch: KickWatch) -> Bool {
    guard !isBlocked.load(ordering: .relaxed) else { return false }
    let before = progress.load(ordering: .relaxed)
    // In one order with what the watch does when it begins to doze: it sees this note, or it is seen to doze.
    progress.store(before &+ 1, ordering: .sequentiallyConsistent)
    watch.noteRing()
    _ = netdev_eventfd_signal(descriptor)
    progress.store(before &+ 2, ordering: .releasing)
    return !isBlocked.load(ordering: .relaxed)
  }

  // MARK: On the watch's loop

  enum Look { case quiet, rung, inside(UInt64) }

  /// Whether it was rung since the last look, or is being rung now as it was then: one and the same system call.
  func look() -> Look {
    let now = progress.load(ordering: .sequentiallyConsistent)
    guard now == seen.load(ordering: .relaxed) else {
      seen.store(now, ordering: .relaxed)
      return .rung
    }
    return now.isMultiple(of: 2) ? .quiet : .inside(now)
  }

  /// Nothing was rung since the last look.
  var isQuiet: Bool { progress.load(ordering: .sequentiallyConsistent) == seen.load(ordering: .relaxed) }

  /// Lets the loop out of the call that `look` found it in, if it is the back-end that keeps it there.
  ///
  /// A thread that was not scheduled meanwhile looks the same, but then the counter has room. The back-end may fill it again as
  /// soon as it is empty, and then it is a matter of luck who is first: so it is emptied until the loop is through, which it
  /// need be only once.
  func letOut(of call: UInt64) {
    guard !netdev_descriptor_is_ready(descriptor, true) else { return }
    isBlocked.store(true, ordering: .relaxed)
    for _ in 0..<1000 {
      guard progress.load(ordering: .acquiring) == call else { return }
      netdev_eventfd_release(descriptor)
      sched_yield()
    }
  }
}
