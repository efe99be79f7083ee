public import CNetdevSystem

/// Doorbells and interrupts, suppressed in both directions (VIRTIO 1.4 §2.7.7, §2.7.10).
extension SplitDriverRing {
  /// True when the device wants to be told of what was published since this was last asked.
  ///
  /// Ask once after `publish`, and kick when the answer is yes. The full fence is what keeps a device that is just going
  /// to sleep from missing the new index (§2.7.13.3): without it the load below may be done before the store is seen.
  ///
  /// Asked once for all that was published since the last time; see ``hasUnannounced``.
  @inlinable
  @inline(__always)
  public mutating func needsKick() -> Bool {
    let old = kickChecked
    let new = published
    guard new != old, failure == nil else { return false }
    kickChecked = new
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    if kickUnconditionally {
      kickUnconditionally = false
      return true
    }
    guard eventIndex else {
      // The used ring's flags: bit 0 asks for no kicks.
      return unsafe netdev_load_relaxed_u16(usedEntries - 4) & 1 == 0
    }
    // With EVENT_IDX the flags are not looked at. After 65535 entries every event has been passed.
    if new &- old >= 65535 { return true }
    let event = unsafe netdev_load_relaxed_u16(usedEntries + 8 * size)
    return EventIndex.isPassed(event, from: UInt16(truncatingIfNeeded: old), to: UInt16(truncatingIfNeeded: new))
  }

  /// True when something was published since ``needsKick()`` was asked last: its answer is then the device's wish.
  @inlinable
  @inline(__always)
  public var hasUnannounced: Bool { published != kickChecked && failure == nil }

  /// Asks for an interrupt when `count` more chains have been used, and looks again: true when there is work already.
  ///
  /// True means that an interrupt may not come: take back what is there, then arm again. `count` is cut to what is in
  /// flight, so that it is reached. Without EVENT_IDX the device interrupts for every chain, whatever `count` says.
  @inlinable
  public mutating func armInterrupt(after count: Int = 1) -> Bool {
    guard failure == nil else { return false }
    let wanted = UInt32(max(1, min(count, inFlight)))
    #if Testing
    netdev_fault_place()
    #endif
    if eventIndex {
      let event = UInt16(truncatingIfNeeded: usedIndex &+ wanted &- 1)
      unsafe netdev_store_relaxed_u16(availEntries + 2 * size, event)
    } else {
      unsafe netdev_store_relaxed_u16(availEntries - 4, 0)
    }
    // Between the reader's last look and the arming the device may have finished: it saw no wish to be told (§2.7.7.1).
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    let index = unsafe netdev_load_acquire_u16(usedEntries - 2)
    let pending = UInt32(index &- UInt16(truncatingIfNeeded: usedIndex))
    return pending >= (eventIndex ? wanted : 1)
  }

  /// Asks for an interrupt when about three quarters of what is in flight have been used; otherwise as `armInterrupt`.
  ///
  /// For batches and pipelines only: what waits for a single chain arms for the next one, and a time bound stands behind.
  @inlinable
  public mutating func armInterruptDelayed() -> Bool {
    armInterrupt(after: inFlight - inFlight / 4)
  }

  /// Asks for no interrupts. A hint: one may still come.
  ///
  /// With EVENT_IDX the flags stay 0 (§2.7.7.1); the event is put just behind, where it takes 65535 chains to be passed.
  @inlinable
  public mutating func disarmInterrupt() {
    if eventIndex {
      unsafe netdev_store_relaxed_u16(availEntries + 2 * size, UInt16(truncatingIfNeeded: usedIndex &- 1))
    } else {
      unsafe netdev_store_relaxed_u16(availEntries - 4, 1)
    }
  }
}
