import CNetdevSystem

/// Chains of several buffers.
extension SplitDriverRing {
  /// Adds a chain: first what the device reads, then what it writes. False when there is no room, or the ring is broken.
  ///
  /// With indirect tables a chain of several buffers takes one descriptor of the ring. Throws `.chainEmpty`,
  /// `.chainTooLong` or `.chainTooLarge`, which are the caller's errors; the ring is then as it was.
  public mutating func add(
    readable: Span<RingBuffer>, writable: Span<RingBuffer>, token: UInt64
  ) throws(RingError) -> Bool {
    let chain = try ChainBuffers(readable, writable, size: size)
    if let indirect, indirect.fit(chain.count, size: size) { return addIndirect(indirect, chain, token: token) }
    guard Int(circle.free) >= chain.count else { return false }
    if !isOrderly { tidy() }
    let head = circle.take()
    var id = head
    for position in 0..<chain.count {
      let isLast = position == chain.count - 1
      let next = isLast ? 0 : circle.take()
      let buffer = chain[position]
      let flags = (chain.isWritable(position) ? DescriptorFlag.write : 0) | (isLast ? 0 : DescriptorFlag.next)
      // Below the size.
      let place = unsafe descriptors + 16 * Int(id)
      unsafe netdev_store_relaxed_u64(place, buffer.address)
      unsafe netdev_store_relaxed_u64(place + 8, DescriptorFlag.word(length: buffer.length, flags: flags, next: next))
      unsafe shadow.entries[Int(id)] = ShadowTable.Entry(token: 0, writable: 0, next: next, count: 0)
      id = next
    }
    makeAvailable(
      head,
      ShadowTable.Entry(
        token: token, writable: chain.writableLength, next: unsafe shadow.entries[Int(head)].next,
        count: UInt16(truncatingIfNeeded: chain.count)))
    return true
  }

  /// Puts the chain in the table that belongs to the next free descriptor.
  ///
  /// The referring descriptor has INDIRECT and neither NEXT nor WRITE (§2.7.5.3.1).
  mutating func addIndirect(_ tables: IndirectTables, _ chain: borrowing ChainBuffers, token: UInt64) -> Bool {
    guard circle.free != 0 else { return false }
    if !isOrderly { tidy() }
    let head = circle.take()
    let table = tables.write(chain, to: head, format: .split)
    let descriptor = unsafe descriptors + 16 * Int(head)
    unsafe netdev_store_relaxed_u64(descriptor, table)
    unsafe netdev_store_relaxed_u64(
      descriptor + 8,
      DescriptorFlag.word(length: UInt32(truncatingIfNeeded: 16 * chain.count), flags: DescriptorFlag.indirect, next: 0)
    )
    makeAvailable(head, ShadowTable.Entry(token: token, writable: chain.writableLength, next: 0, count: 1))
    return true
  }

  private mutating func makeAvailable(_ head: UInt16, _ entry: ShadowTable.Entry) {
    // A head is below the size.
    unsafe shadow.entries[Int(head)] = entry
    unsafe shadow.published[Int(head)] = availIndex
    unsafe netdev_store_relaxed_u16(availEntries + 2 * Int(availIndex & mask), head)
    availIndex &+= 1
    if entry.count > 1 { several &+= 1 }
  }
}
