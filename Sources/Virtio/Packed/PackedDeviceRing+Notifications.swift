public import CNetdevSystem

/// Calls and kicks, suppressed in both directions (VIRTIO 1.4 §2.8.10, §2.8.14).
extension PackedDeviceRing {
  /// True when the driver wants to be told of what was published since this was last asked.
  ///
  /// Ask once after `publishUsed`. The full fence keeps a driver that is just going to sleep from missing the used descriptors.
  @inlinable
  @inline(__always)
  public mutating func needsCall() -> Bool {
    guard published != callChecked else { return false }
    callChecked = published
    let advance = unannounced
    unannounced = 0
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    if callUnconditionally {
      callUnconditionally = false
      return true
    }
    return EventIndex.isWanted(
      unsafe netdev_load_relaxed_u32(driverEvent), at: usedNext, hidden: hidden, advance: advance, size: count,
      eventIndex: eventIndex)
  }

  /// Asks for a kick at the next available chain, and looks again: true when there is one already.
  @inlinable
  public mutating func armKick() -> Bool {
    guard failure == nil else { return false }
    #if Testing
    netdev_fault_place()
    #endif
    let wish = eventIndex ? UInt32(next.index) | EventFlag.descriptor : EventFlag.enable
    unsafe netdev_store_relaxed_u32(deviceEvent, wish)
    // Between the last look and the arming the driver may have published: it saw no wish to be told (§2.8.14).
    netdev_full_fence()
    #if Testing
    netdev_fault_place()
    #endif
    return hasMore
  }

  /// Asks for no kicks. A hint: one may still come.
  @inlinable
  public mutating func disarmKick() { unsafe netdev_store_relaxed_u32(deviceEvent, EventFlag.disable) }
}
