import CNetdevSystem
import Glibc

/// Where two threads meet, again and again, to start something in the same instant and to compare what came of it.
@safe
package final class Meeting: @unchecked Sendable {
  /// Each thread's round and its answer, in a cache line of its own.
  private let words: UnsafeMutablePointer<UInt32>

  package init() {
    unsafe words = .allocate(capacity: 64)
    unsafe words.initialize(repeating: 0, count: 64)
  }

  deinit { unsafe words.deallocate() }

  /// Waits for the other thread at `round`, a number that grows by one; each side then goes on at once.
  package func meet(_ side: Int, round: UInt32) {
    arrive(side, round: round)
    var spins = 0
    while unsafe Int32(bitPattern: netdev_load_acquire_u32(words + 32 * (1 - side)) &- round) < 0 {
      spins += 1
      // The other one is not running: leave it the processor.
      if spins % 512 == 0 { sched_yield() }
    }
  }

  /// Lets the other side through all meetings up to `round`.
  package func arrive(_ side: Int, round: UInt32) { unsafe netdev_store_release_u32(words + 32 * side, round) }

  /// There will be no other round.
  package func finish() { unsafe netdev_store_release_u32(words + 24, 1) }

  /// True after `finish`.
  package var isFinished: Bool { unsafe netdev_load_acquire_u32(words + 24) != 0 }

  /// The answer that `side` gave before the last meeting.
  package func answer(of side: Int) -> Bool { unsafe netdev_load_acquire_u32(words + 32 * side + 16) != 0 }

  /// Gives this side's answer, to be read after the next meeting.
  package func give(_ side: Int, _ answer: Bool) {
    unsafe netdev_store_release_u32(words + 32 * side + 16, answer ? 1 : 0)
  }
}
