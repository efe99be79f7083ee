import CNetdevSystem
import Glibc

/// Two threads that sleep until they are signalled, as on eventfds, and that notice when both sleep for ever.
///
/// A signal sets a word; who parks spins on it, which is quick enough to meet the moments in which a wake-up can get lost.
/// Both parked with no signal pending is a state that nothing leads out of: it is found by looking, not by a clock.
@safe
package final class Parking: @unchecked Sendable {
  package enum Side: Int {
    case driver = 0
    case device = 1
    var other: Side { self == .driver ? .device : .driver }
  }

  /// A signal and a count of parkings for each side, odd while it is parked; each in a cache line of its own.
  private let words: UnsafeMutablePointer<UInt32>
  private let stuckWord: UnsafeMutablePointer<UInt32>

  package init() {
    unsafe words = .allocate(capacity: 80)
    unsafe words.initialize(repeating: 0, count: 80)
    unsafe stuckWord = words + 64
  }

  deinit { unsafe words.deallocate() }

  private func signalWord(_ side: Side) -> UnsafeMutablePointer<UInt32> { unsafe words + 32 * side.rawValue }
  private func epochWord(_ side: Side) -> UnsafeMutablePointer<UInt32> { unsafe words + 32 * side.rawValue + 16 }

  /// True once both sides slept with nothing to wake them: a wake-up was lost.
  package var isStuck: Bool { unsafe netdev_load_acquire_u32(stuckWord) != 0 }

  /// Wakes `side`, now or when it parks next.
  package func signal(_ side: Side) { _ = unsafe netdev_exchange_u32(signalWord(side), 1) }

  /// Sleeps until signalled; false when nothing will ever come.
  package func park(_ side: Side) -> Bool {
    let signal = unsafe signalWord(side)
    let epoch = unsafe epochWord(side)
    unsafe netdev_store_release_u32(epoch, epoch.pointee &+ 1)
    var spins = 0
    while unsafe netdev_load_acquire_u32(signal) == 0 {
      spins += 1
      if spins % 64 == 0 {
        if isStuck || bothAsleep(side) { return false }
        sched_yield()
      }
    }
    // Awake before the signal is taken: an odd epoch and no signal then means asleep.
    unsafe netdev_store_release_u32(epoch, epoch.pointee &+ 1)
    _ = unsafe netdev_exchange_u32(signal, 0)
    return true
  }

  /// Called by a parked side. While the other's epoch stands, its missing signal was seen in its sleep.
  private func bothAsleep(_ side: Side) -> Bool {
    let epoch = unsafe netdev_load_acquire_u32(epochWord(side.other))
    guard epoch & 1 == 1, unsafe netdev_load_acquire_u32(signalWord(side.other)) == 0,
      unsafe netdev_load_acquire_u32(signalWord(side)) == 0,
      unsafe netdev_load_acquire_u32(epochWord(side.other)) == epoch
    else { return false }
    unsafe netdev_store_release_u32(stuckWord, 1)
    return true
  }
}
