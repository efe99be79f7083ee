public import CNetdevSystem

// The way back: used descriptors over the ring, and the first of them into the driver's sight last.
extension PackedDeviceRing {
  /// Returns a chain; the driver sees it after `publishUsed`.
  @inlinable
  @inline(__always)
  public mutating func pushUsed(_ chain: DescriptorChain, written: UInt32) {
    if inOrder {
      if chain.writableCount == 0 { return joinBatch(id: chain.head, places: chain.places, count: 1) }
      endBatch()
    }
    put(id: chain.head, places: chain.places, count: 1, written: written)
  }

  /// With IN_ORDER: `count` more chains that were only read, `places` descriptors long, the last of them with this id.
  @inlinable
  @inline(__always)
  mutating func joinBatch(id: UInt16, places: UInt32, count: UInt32) {
    batchCount &+= count
    batchPlaces &+= places
    batchId = id
  }

  /// Gives the batch a used descriptor, if there is one.
  @inlinable
  @inline(__always)
  mutating func flushBatch() { if batchCount != 0 { putBatch() } }

  /// The same out of line, for chains that were written into: what comes before them is rarely a batch.
  @usableFromInline
  @inline(never)
  mutating func endBatch() { flushBatch() }

  /// One used descriptor for the batch, where its first one was (VIRTIO 1.4 §2.8.8).
  @inlinable
  mutating func putBatch() {
    put(id: batchId, places: batchPlaces, count: batchCount, written: 0)
    batchCount = 0
    batchPlaces = 0
  }

  /// The flags of the next used descriptor, this one beside the marks. The first that is not published looks available, until
  /// `publishUsed` shows it.
  @inlinable
  @inline(__always)
  mutating func usedFlags(_ kind: UInt16) -> UInt16 {
    let shown = usedNext.marks | kind
    guard returned == published else { return shown }
    (firstPlace, firstFlags) = (usedNext.place, shown)
    return usedNext.availableMarks | kind
  }

  /// Writes a used descriptor for `count` chains, and goes on behind their `places`.
  @inlinable
  @inline(__always)
  mutating func put(id: UInt16, places: UInt32, count chains: UInt32, written: UInt32) {
    // WRITE says that the length means something (§2.8.4).
    let flags = usedFlags(written != 0 ? DescriptorFlag.write : 0)
    // A place in the ring.
    unsafe netdev_store_relaxed_u64(
      descriptors + (16 * Int(usedNext.place) + 8), DescriptorFlag.word(length: written, id: id, flags: flags))
    returned &+= chains
    held &-= places
    hidden &+= places
    usedNext.advance(by: places, size: count)
  }

  /// Shows the driver everything returned since the last time: one store-release of the first one's flags, which are the last
  /// to be written (§2.8.21).
  @inlinable
  @inline(__always)
  public mutating func publishUsed() {
    if inOrder { flushBatch() }
    guard returned != published else { return }
    published = returned
    unannounced = min(unannounced &+ hidden, count)
    hidden = 0
    // A place in the ring.
    unsafe netdev_store_release_u16(descriptors + (16 * Int(firstPlace) + 14), firstFlags)
  }
}
