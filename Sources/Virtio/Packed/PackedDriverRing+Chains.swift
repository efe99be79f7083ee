import CNetdevSystem

/// Chains of several buffers.
extension PackedDriverRing {
  /// Adds a chain: first what the device reads, then what it writes. False when there is no room, or the ring is broken.
  ///
  /// With indirect tables a chain of several buffers takes one descriptor of the ring. Throws `.chainEmpty`,
  /// `.chainTooLong` or `.chainTooLarge`, which are the caller's errors; the ring is then as it was.
  public mutating func add(
    readable: Span<RingBuffer>, writable: Span<RingBuffer>, token: UInt64
  ) throws(RingError) -> Bool {
    let chain = try ChainBuffers(readable, writable, size: size)
    if let indirect, indirect.fit(chain.count, size: size) {
      // A table's descriptor has INDIRECT, and neither NEXT nor WRITE (§2.8.7).
      guard free != 0 else { return false }
      let id = begin(token: token, descriptors: 1, writable: chain.writableLength)
      let table = indirect.write(chain, to: id, format: .packed)
      put(table, length: UInt32(truncatingIfNeeded: 16 * chain.count), id: id, DescriptorFlag.indirect, isFirst: true)
      added &+= 1
      return true
    }
    guard Int(free) >= chain.count else { return false }
    let id = begin(
      token: token, descriptors: UInt16(truncatingIfNeeded: chain.count), writable: chain.writableLength)
    for position in 0..<chain.count {
      let buffer = chain[position]
      let flags =
        (chain.isWritable(position) ? DescriptorFlag.write : 0)
        | (position == chain.count - 1 ? 0 : DescriptorFlag.next)
      // The id counts in the last one; it is the same in all (§2.8.6).
      put(buffer.address, length: buffer.length, id: id, flags, isFirst: position == 0)
    }
    added &+= 1
    if chain.count > 1 { several &+= 1 }
    return true
  }

  /// Takes an id for a chain and notes whose it is.
  private mutating func begin(token: UInt64, descriptors: UInt16, writable: UInt32) -> UInt16 {
    if !isOrderly { tidy() }
    // The place's, while chains are out in order.
    let id = freeId(for: next.place)
    // Below the size.
    unsafe shadow.entries[Int(id)] = ShadowTable.Entry(token: token, writable: writable, next: 0, count: descriptors)
    unsafe shadow.published[Int(id)] = added
    return id
  }

  /// Writes the next descriptor. The first one of all that are not published is not shown before `publish`.
  private mutating func put(_ address: UInt64, length: UInt32, id: UInt16, _ kind: UInt16, isFirst: Bool) {
    // A place in the ring.
    let place = unsafe descriptors + 16 * Int(next.place)
    let shown = next.availableMarks | kind
    var flags = shown
    if isFirst, added == published {
      (firstPlace, firstFlags) = (next.place, shown)
      flags = next.marks ^ DescriptorFlag.marks
    }
    unsafe netdev_store_relaxed_u64(place, address)
    unsafe netdev_store_relaxed_u64(place + 8, DescriptorFlag.word(length: length, id: id, flags: flags))
    hidden &+= 1
    free &-= 1
    next.advance(by: 1, size: count)
  }
}
