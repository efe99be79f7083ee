public import CNetdevSystem

/// Doorbells and interrupts, suppressed in both directions (VIRTIO 1.4 §2.8.10, §2.8.14).
///
/// Each side has one word: off_wrap, then flags. It is read and written whole, so that the two belong together.
extension PackedDriverRing {
  /// True when the device wants to be told of what was published since this was last asked.
  ///
  /// Ask once after `publish`, and kick when the answer is yes. The full fence is what keeps a device that is just going
  /// to sleep from missing the new descriptors (§2.8.21.2): without it the load below may be done before the store is seen.
  @inlinable
  @inline(__always)
  public mutating func needsKick() -> Bool {
    guard published != kickChecked, failure == nil else { return false }
    kickChecked = published
    let advance = unannounced
    unannounced = 0
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    if kickUnconditionally {
      kickUnconditionally = false
      return true
    }
    return EventIndex.isWanted(
      unsafe netdev_load_relaxed_u32(deviceEvent), at: next, hidden: hidden, advance: advance, size: count,
      eventIndex: eventIndex)
  }

  /// True when something was published since ``needsKick()`` was asked last: its answer is then the device's wish.
  @inlinable
  @inline(__always)
  public var hasUnannounced: Bool { published != kickChecked && failure == nil }

  /// Asks for an interrupt when `count` more chains have been used, at the latest, and looks again: true when there is one
  /// already.
  ///
  /// The event is a descriptor: `count` chains have at least as many.
  @inlinable
  public mutating func armInterrupt(after count: Int) -> Bool {
    guard failure == nil else { return false }
    #if Testing
    netdev_fault_place()
    #endif
    if eventIndex {
      var event = usedNext
      event.advance(by: UInt32(max(1, min(count, inFlight)) - 1), size: self.count)
      unsafe netdev_store_relaxed_u32(driverEvent, UInt32(event.index) | EventFlag.descriptor)
    } else {
      unsafe netdev_store_relaxed_u32(driverEvent, EventFlag.enable)
    }
    // Between the reader's last look and the arming the device may have finished: it saw no wish to be told (§2.8.14).
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    return batchRemaining != 0 || isUsed
  }

  /// Asks for no interrupts. A hint: one may still come.
  @inlinable
  public mutating func disarmInterrupt() {
    unsafe netdev_store_relaxed_u32(driverEvent, EventFlag.disable)
  }
}
