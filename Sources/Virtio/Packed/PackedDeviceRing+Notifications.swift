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
    let word = unsafe netdev_load_relaxed_u32(driverEvent)
    let wish = word & 0x3_0000
    if wish == EventFlag.disable { return false }
    guard eventIndex, wish == EventFlag.descriptor else { return true }
    var place = usedNext
    place.goBack(by: hidden, size: count)
    return EventIndex.isPassed(
      offWrap: UInt16(truncatingIfNeeded: word), advance: advance, to: place.place, wrap: place.marks != 0, size: count)
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
