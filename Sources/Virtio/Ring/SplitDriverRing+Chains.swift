import CNetdevSystem

/// Chains of several buffers, and the order that IN_ORDER asks for.
extension SplitDriverRing {
  /// Adds a chain: first what the device reads, then what it writes. False when there is no room, or the ring is broken.
  ///
  /// With indirect tables a chain of several buffers takes one descriptor of the ring. Throws `.chainEmpty`,
  /// `.chainTooLong` or `.chainTooLarge`, which are the caller's errors; the ring is then as it was.
  public mutating func add(
    readable: Span<RingBuffer>, writable: Span<RingBuffer>, token: UInt64
  ) throws(RingError) -> Bool {
    let total = readable.count + writable.count
    guard total > 0 else { throw RingError(.chainEmpty, 0) }
    guard total <= size else { throw RingError(.chainTooLong, UInt64(total)) }
    let writableBytes = Self.bytes(of: writable)
    // Span counts are below 2¹⁶ here, lengths below 2³²: the sum cannot overflow 64 bits.
    let bytes = Self.bytes(of: readable) + writableBytes
    guard bytes <= UInt64(UInt32.max) else { throw RingError(.chainTooLarge, bytes) }
    let writableLength = UInt32(truncatingIfNeeded: writableBytes)

    if total > 1, let indirect, total <= indirect.capacity, total < size {
      return addIndirect(indirect, readable: readable, writable: writable, writableLength: writableLength, token: token)
    }
    guard Int(shadow.free) >= total else { return false }
    let head = shadow.take()
    var id = head
    for position in 0..<total {
      let isLast = position == total - 1
      let next = isLast ? 0 : shadow.take()
      unsafe Self.store(
        Self.buffer(position, readable, writable), isWritable: position >= readable.count, next: isLast ? nil : next,
        at: descriptors + 16 * Int(id))
      unsafe shadow.entries[Int(id)] = ShadowTable.Entry(token: 0, writable: 0, next: next, count: 0)
      id = next
    }
    unsafe shadow.entries[Int(head)].token = token
    unsafe shadow.entries[Int(head)].writable = writableLength
    unsafe shadow.entries[Int(head)].count = UInt16(truncatingIfNeeded: total)
    makeAvailable(head)
    return true
  }

  /// Puts the chain in the table that belongs to the next free descriptor, from its start on, as IN_ORDER asks too.
  ///
  /// The referring descriptor has INDIRECT and neither NEXT nor WRITE (§2.7.5.3.1). Tables stay below the ring's size:
  /// DPDK's packed ring refuses longer ones, and one rule for both rings is simpler.
  mutating func addIndirect(
    _ tables: IndirectTables, readable: Span<RingBuffer>, writable: Span<RingBuffer>, writableLength: UInt32,
    token: UInt64
  ) -> Bool {
    guard shadow.free != 0 else { return false }
    let head = shadow.take()
    let offset = 16 * tables.capacity * Int(head)
    let total = readable.count + writable.count
    for position in 0..<total {
      // The table has room: the caller compared with the capacity.
      unsafe Self.store(
        Self.buffer(position, readable, writable), isWritable: position >= readable.count,
        next: position == total - 1 ? nil : UInt16(truncatingIfNeeded: position + 1),
        at: tables.host + offset + 16 * position)
    }
    let descriptor = unsafe descriptors + 16 * Int(head)
    unsafe netdev_store_relaxed_u64(descriptor, tables.address &+ UInt64(offset))
    unsafe netdev_store_relaxed_u64(
      descriptor + 8,
      DescriptorFlag.word(length: UInt32(truncatingIfNeeded: 16 * total), flags: DescriptorFlag.indirect, next: 0))
    unsafe shadow.entries[Int(head)] = ShadowTable.Entry(token: token, writable: writableLength, next: 0, count: 1)
    makeAvailable(head)
    return true
  }

  private mutating func makeAvailable(_ head: UInt16) {
    // A head is below the size.
    unsafe shadow.published[Int(head)] = availIndex
    unsafe netdev_store_relaxed_u16(availEntries + 2 * Int(availIndex & mask), head)
    availIndex &+= 1
  }

  private static func bytes(of buffers: Span<RingBuffer>) -> UInt64 {
    var sum: UInt64 = 0
    for index in buffers.indices { sum += UInt64(buffers[index].length) }
    return sum
  }

  private static func buffer(
    _ position: Int, _ readable: Span<RingBuffer>, _ writable: Span<RingBuffer>
  ) -> RingBuffer {
    position < readable.count ? readable[position] : writable[position - readable.count]
  }

  /// Writes one descriptor at `place`, linked to `next` unless it is the last.
  private static func store(
    _ buffer: RingBuffer, isWritable: Bool, next: UInt16?, at place: UnsafeMutableRawPointer
  ) {
    let flags = (isWritable ? DescriptorFlag.write : 0) | (next == nil ? 0 : DescriptorFlag.next)
    unsafe netdev_store_relaxed_u64(place, buffer.address)
    unsafe netdev_store_relaxed_u64(
      place + 8, DescriptorFlag.word(length: buffer.length, flags: flags, next: next ?? 0))
  }

  // MARK: IN_ORDER

  /// The oldest outstanding chain, when the device returns chains in order.
  ///
  /// One used element may stand for a batch: its id is the last chain's, `used.idx` advances by the whole batch, and the
  /// chains before the last were used completely (VIRTIO 1.4 §2.7.9). The next element follows after the batch.
  @usableFromInline
  mutating func nextUsedInOrder() throws(RingError) -> UsedBuffer {
    // Descriptors go out in table order and come back in it, so the oldest head follows what has been returned.
    let oldest = shadow.returned & mask
    if batchRemaining == 0 {
      let element = unsafe usedEntries + 8 * Int(usedIndex & mask)
      let id = unsafe netdev_load_relaxed_u32(element)
      let written = unsafe netdev_load_relaxed_u32(element + 4)
      guard id <= mask else { throw fail(RingError(.usedIdOutOfRange, UInt64(id))) }
      guard unsafe shadow.entries[Int(id)].count != 0 else { throw fail(RingError(.usedIdNotOutstanding, UInt64(id))) }
      let pending = usedSeen &- usedIndex
      var length: UInt32 = 1
      var head = oldest
      while head != id {
        length &+= 1
        guard length <= pending else { throw fail(RingError(.usedOutOfOrder, UInt64(id))) }
        // Masked; among the published chains, so the count is not zero.
        head = unsafe (head &+ UInt32(shadow.entries[Int(head)].count)) & mask
      }
      guard unsafe written <= shadow.entries[Int(id)].writable else {
        throw fail(RingError(.usedLengthTooLong, UInt64(written)))
      }
      batchRemaining = length
      batchWritten = written
    }
    let entry = unsafe shadow.entries[Int(oldest)]
    batchRemaining &-= 1
    usedIndex &+= 1
    unsafe shadow.entries[Int(oldest)].count = 0
    shadow.putChain(head: UInt16(truncatingIfNeeded: oldest), count: entry.count)
    return UsedBuffer(token: entry.token, written: batchRemaining == 0 ? batchWritten : entry.writable)
  }

  /// Takes back up to `max` chains, all of them seen already.
  @usableFromInline
  mutating func reapInOrder(into output: UnsafeMutablePointer<UsedBuffer>, max: Int) throws(RingError) -> Int {
    var done = 0
    while done < max {
      do throws(RingError) {
        unsafe output[done] = try nextUsedInOrder()
      } catch {
        if done == 0 { throw error }
        break
      }
      done += 1
    }
    return done
  }
}
