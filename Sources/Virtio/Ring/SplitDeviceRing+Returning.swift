public import CNetdevSystem

// The way back: chains onto the used ring, and the used ring into the driver's sight.
extension SplitDeviceRing {
  /// Puts a chain on the used ring; the driver sees it after `publishUsed`.
  ///
  /// `written` is what the device wrote, no more (§2.7.8.1); 0 for a chain that was only read. With IN_ORDER chains are
  /// returned in the order in which they were taken. Each chain is returned once: the ring does not watch its owner.
  @inlinable
  @inline(__always)
  public mutating func pushUsed(head: UInt16, written: UInt32) {
    let element = unsafe usedEntries + 8 * Int(usedIndex & mask)
    unsafe netdev_store_relaxed_u32(element, UInt32(head))
    unsafe netdev_store_relaxed_u32(element + 4, written)
    usedIndex &+= 1
  }

  /// Puts `count` chains on the used ring: `element` is called for each, from zero up, and says which and how much.
  @inlinable
  @inline(__always)
  public mutating func pushUsed(count: Int, _ element: (Int) -> (head: UInt16, written: UInt32)) {
    let elements = unsafe usedEntries
    let mask = mask
    var used = usedIndex
    var position = 0
    while position < count {
      let (head, written) = element(position)
      let place = unsafe elements + 8 * Int(used & mask)
      unsafe netdev_store_relaxed_u32(place, UInt32(head))
      unsafe netdev_store_relaxed_u32(place + 4, written)
      used &+= 1
      position &+= 1
    }
    usedIndex = used
  }

  /// Returns the `count` oldest chains by one element, as IN_ORDER allows (§2.7.9): `head` is the last of them.
  ///
  /// The others count as completely used: right for chains that were only read, and for full ones. A mistake of the
  /// device's own code, no IN_ORDER or more chains than are outstanding, is a failed precondition.
  @inlinable
  public mutating func pushUsedBatch(head: UInt16, count: Int, written: UInt32) {
    precondition(inOrder && count > 0 && count <= outstanding)
    let start = usedIndex
    pushUsed(head: head, written: written)
    usedIndex = start &+ UInt32(truncatingIfNeeded: count)
  }

  /// Shows the driver everything returned since the last time: one store-release of `used.idx` (§2.7.13.3).
  ///
  /// What is exposed together is seen together: the buffers of one merged frame are pushed, then published once.
  @inlinable
  @inline(__always)
  public mutating func publishUsed() {
    guard usedIndex != published else { return }
    published = usedIndex
    // The used ring's idx lies two bytes before its entries.
    unsafe netdev_store_release_u16(usedEntries - 2, UInt16(truncatingIfNeeded: published))
  }
}
