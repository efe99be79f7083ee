public import CNetdevSystem

// The way back: chains onto the used ring, and the used ring into the driver's sight.
extension SplitDeviceRing {
  /// Returns a chain; the driver sees it after `publishUsed`.
  @inlinable
  @inline(__always)
  public mutating func pushUsed(_ chain: DescriptorChain, written: UInt32) {
    pushUsed(head: chain.head, written: written, isReadOnly: chain.writableCount == 0)
  }

  /// Returns the chain of `head`.
  ///
  /// With IN_ORDER one element may stand for a batch: its id is the last chain's, and the others count as completely used (VIRTIO
  /// 1.4 §2.7.9). That is right for chains that were only read.
  @inlinable
  @inline(__always)
  mutating func pushUsed(head: UInt16, written: UInt32, isReadOnly: Bool) {
    if inOrder {
      if isReadOnly { return joinBatch(head: head, count: 1) }
      endBatch()
    }
    put(head: head, written: written)
  }

  /// With IN_ORDER: `count` more chains that were only read, the last of them at `head`.
  @inlinable
  @inline(__always)
  mutating func joinBatch(head: UInt16, count: UInt32) {
    batchCount &+= count
    batchHead = head
  }

  /// Puts the batch on the used ring, if there is one.
  @inlinable
  @inline(__always)
  mutating func flushBatch() { if batchCount != 0 { putBatch() } }

  /// The same out of line, for chains that were written into: what comes before them is rarely a batch.
  @usableFromInline
  @inline(never)
  mutating func endBatch() { flushBatch() }

  /// One element, at the first place of the batch.
  @inlinable
  mutating func putBatch() {
    put(head: batchHead, written: 0)
    usedIndex &+= batchCount &- 1
    batchCount = 0
  }

  @inlinable
  @inline(__always)
  mutating func put(head: UInt16, written: UInt32) {
    let element = unsafe usedEntries + 8 * Int(usedIndex & mask)
    unsafe netdev_store_relaxed_u32(element, UInt32(head))
    unsafe netdev_store_relaxed_u32(element + 4, written)
    usedIndex &+= 1
  }

  /// Shows the driver everything returned since the last time: one store-release of `used.idx` (§2.7.13.3).
  ///
  /// What is exposed together is seen together: the buffers of one merged frame are pushed, then published once.
  @inlinable
  @inline(__always)
  public mutating func publishUsed() {
    if inOrder { flushBatch() }
    guard usedIndex != published else { return }
    published = usedIndex
    // The used ring's idx lies two bytes before its entries.
    unsafe netdev_store_release_u16(usedEntries - 2, UInt16(truncatingIfNeeded: published))
  }
}
