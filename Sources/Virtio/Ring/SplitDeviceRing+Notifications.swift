public import CNetdevSystem

/// Calls and kicks, suppressed in both directions (VIRTIO 1.4 §2.7.7, §2.7.10).
extension SplitDeviceRing {
  /// True when the driver wants to be told of what was published since this was last asked.
  ///
  /// Ask once after `publishUsed`. The full fence keeps a driver that is just going to sleep from missing the new index.
  @inlinable
  @inline(__always)
  public mutating func needsCall() -> Bool {
    let old = callChecked
    let new = published
    guard new != old else { return false }
    callChecked = new
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    if callUnconditionally {
      callUnconditionally = false
      return true
    }
    guard eventIndex else {
      // The available ring's flags: bit 0 asks for no interrupts.
      return unsafe netdev_load_relaxed_u16(availEntries - 4) & 1 == 0
    }
    // With EVENT_IDX the flags are not looked at. After 65535 elements every event has been passed.
    if new &- old >= 65535 { return true }
    let event = unsafe netdev_load_relaxed_u16(availEntries + 2 * size)
    return EventIndex.isPassed(event, from: UInt16(truncatingIfNeeded: old), to: UInt16(truncatingIfNeeded: new))
  }

  /// Asks for a kick at the next available chain, and looks again: true when there is one already.
  ///
  /// True means that a kick may not come: serve what is there, then arm again.
  @inlinable
  public mutating func armKick() -> Bool {
    guard failure == nil else { return false }
    #if Testing
    netdev_fault_place()
    #endif
    if eventIndex {
      unsafe netdev_store_relaxed_u16(usedEntries + 8 * size, UInt16(truncatingIfNeeded: availIndex))
    } else {
      unsafe netdev_store_relaxed_u16(usedEntries - 4, 0)
    }
    // Between the last look and the arming the driver may have published: it saw no wish to be told (§2.7.10).
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    return unsafe netdev_load_acquire_u16(availEntries - 2) != UInt16(truncatingIfNeeded: availIndex)
  }

  /// Asks for no kicks. A hint: one may still come.
  ///
  /// With EVENT_IDX the flags stay 0 (§2.7.10.1); the event is put just behind, where it takes 65535 chains to be passed.
  @inlinable
  public mutating func disarmKick() {
    if eventIndex {
      unsafe netdev_store_relaxed_u16(usedEntries + 8 * size, UInt16(truncatingIfNeeded: availIndex &- 1))
    } else {
      unsafe netdev_store_relaxed_u16(usedEntries - 4, 1)
    }
  }
}
