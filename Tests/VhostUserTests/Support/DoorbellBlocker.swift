import CNetdevSystem
import Foundation
import Glibc
import Synchronization

/// What a hostile back-end does to an eventfd that both sides hold: fills its counter, clears O_NONBLOCK, and waits on a thread
/// of its own to do both again as soon as there is room.
final class DoorbellBlocker: Sendable {
  private let descriptor: CInt
  private let isOver = Atomic<Bool>(false)
  private let isGone = Atomic<Bool>(false)

  /// Borrows the descriptor, until `end`. When this returns, the next to write will wait.
  init(_ descriptor: CInt) {
    self.descriptor = descriptor
    netdev_eventfd_release(descriptor)
    Self.fill(descriptor)
    Self.clearFlag(descriptor)
    Thread.detachNewThread { [self] in
      while !isOver.load(ordering: .acquiring) {
        Self.clearFlag(descriptor)
        Self.fill(descriptor)
      }
      isGone.store(true, ordering: .releasing)
    }
  }

  func end() {
    isOver.store(true, ordering: .releasing)
    while !isGone.load(ordering: .acquiring) {
      netdev_eventfd_release(descriptor)
      usleep(100)
    }
  }

  /// The most that a counter takes; when it is not empty this waits, or does nothing.
  static func fill(_ descriptor: CInt) {
    var most = UInt64.max - 1
    _ = unsafe write(descriptor, &most, MemoryLayout<UInt64>.size)
  }

  static func clearFlag(_ descriptor: CInt) {
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
  }
}
