import CNetdevSystem
import Glibc
import Virtio

/// A driver that offers one buffer again and again, on a thread of its own, as quickly as the device uses it: what a device does with it
/// ends, although it never does.
@safe
package final class TirelessDriver: @unchecked Sendable {
  // Proof of Sendable: nothing in it changes but the words of `over`, which are accessed through atomics.

  private let place: RingPlace
  private let address: UInt64
  private let length: UInt32
  private let isWritable: Bool
  private let limit: Int
  /// Whether it has ended, and whether it shall.
  private let over: UnsafeMutablePointer<UInt32>

  /// A driver of the ring at `place`, which has been laid; it has more than three descriptors.
  ///
  /// - Parameter limit: how often it offers the buffer: tired it is in the end, so that a device that follows it comes back.
  package init(_ place: RingPlace, address: UInt64, length: UInt32, isWritable: Bool, limit: Int) {
    self.place = place
    self.address = address
    self.length = length
    self.isWritable = isWritable
    self.limit = limit
    unsafe over = .allocate(capacity: 2)
    unsafe over.initialize(repeating: 0, count: 2)
  }

  deinit { unsafe over.deallocate() }

  /// Everything has been offered.
  package var isOver: Bool { unsafe netdev_load_acquire_u32(over) != 0 }

  /// It need not go on.
  package func stop() { unsafe netdev_store_release_u32(over + 1, 1) }

  /// The body of its thread.
  package func run() {
    switch place.setting.format {
    case .split: runSplit()
    case .packed: runPacked()
    }
    unsafe netdev_store_release_u32(over, 1)
  }

  private var isStopped: Bool { unsafe netdev_load_acquire_u32(over + 1) != 0 }

  /// Every available entry names descriptor 0; the index is always a whole ring ahead of the device's.
  private func runSplit() {
    let (size, layout) = (place.setting.size, place.layout)
    let available = unsafe place.block + layout.driverOffset
    unsafe netdev_store_relaxed_u64(place.block, address)
    unsafe netdev_store_relaxed_u64(place.block + 8, UInt64(length) | (isWritable ? 2 << 32 : 0))
    for entry in 0..<size { unsafe netdev_store_relaxed_u16(available + 4 + 2 * entry, 0) }
    var last: UInt16 = 0
    var offered = 0
    while offered < limit, !isStopped {
      let index = unsafe netdev_load_acquire_u16(place.block + layout.deviceOffset + 2) &+ UInt16(size)
      if index == last { sched_yield() }
      offered += Int(index &- last)
      last = index
      unsafe netdev_store_release_u16(available + 2, index)
    }
  }

  private func runPacked() {
    let size = place.setting.size
    var offered = 0
    // Used by the device, as far as is known. Of a chain one of the next two says it: the first that is used is not shown at once.
    var used = 0
    while offered < limit, !isStopped {
      while offered - used < size {
        offer(offered)
        offered += 1
      }
      if isUsed(used + 1) || isUsed(used + 2) {
        used += 1
        continue
      }
      // When that one is shown at last, it has been offered again already: once more.
      for number in used...(used + 2) where number >= size && isUsed(number - size) { offer(number) }
      sched_yield()
    }
  }

  private func offer(_ number: Int) {
    let (descriptor, wrap) = unsafe descriptor(number)
    unsafe netdev_store_relaxed_u64(descriptor, address)
    unsafe netdev_store_relaxed_u32(descriptor + 8, length)
    unsafe netdev_store_relaxed_u16(descriptor + 12, 7)
    unsafe netdev_store_release_u16(descriptor + 14, (wrap ? 0x80 : 0x8000) | (isWritable ? 2 : 0))
  }

  private func isUsed(_ number: Int) -> Bool {
    let (descriptor, wrap) = unsafe descriptor(number)
    return unsafe netdev_load_acquire_u16(descriptor + 14) & 0x8080 == (wrap ? 0x8080 : 0)
  }

  /// Where the chain of this number is, and the wrap counter of its lap.
  private func descriptor(_ number: Int) -> (UnsafeMutableRawPointer, wrap: Bool) {
    unsafe (place.block + 16 * (number % place.setting.size), number / place.setting.size % 2 == 0)
  }
}
