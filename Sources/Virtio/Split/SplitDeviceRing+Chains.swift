import CNetdevSystem

/// Chains of several buffers, indirect tables, and what to do with a chain that breaks a rule.
extension SplitDeviceRing {
  /// Follows the chain at `head`, whose first descriptor has been copied to `address` and `word`.
  ///
  /// Every descriptor is copied once, in two loads, before it is looked at. The walk ends: each step but the one into an
  /// indirect table adds a segment, and a chain has no more segments than the ring has descriptors (VIRTIO 1.4 §2.7.5).
  /// Nil when this batch has no room left for the chain; it is then the first of the next.
  @usableFromInline
  @inline(never)
  mutating func walk(
    head: UInt32, address: UInt64, word: UInt64, in memory: borrowing GuestMemory
  ) throws(RingError) -> DescriptorChain? {
    var address = address
    var word = word
    var table = unsafe descriptors
    var tableSize = UInt32(size)
    var isInTable = false
    var readable = 0
    var writable = 0
    var bytes: UInt64 = 0
    let start = unsafe segments + segmentCount
    while true {
      let flags = UInt16(truncatingIfNeeded: word &>> 32)
      let length = UInt32(truncatingIfNeeded: word)
      if flags & DescriptorFlag.indirect != 0 {
        // Direct descriptors may come before the table, nothing after it; WRITE on the reference is ignored (§2.7.5.3.2).
        guard indirect else { throw refuse(head, RingError(.indirectNotNegotiated, UInt64(flags))) }
        guard !isInTable else { throw refuse(head, RingError(.indirectNested, UInt64(flags))) }
        guard flags & DescriptorFlag.next == 0 else { throw refuse(head, RingError(.indirectWithNext, UInt64(flags))) }
        guard length % 16 == 0, length != 0, length / 16 <= UInt32(size) else {
          throw refuse(head, RingError(.indirectLength, UInt64(length)))
        }
        guard let entries = unsafe memory.pointer(to: address, length: length, forWriting: false) else {
          throw refuse(head, RingError(.bufferUnmapped, address))
        }
        guard UInt(bitPattern: entries) % 8 == 0 else {
          throw refuse(head, RingError(.indirectAlignment, address))
        }
        unsafe table = entries
        tableSize = length / 16
        isInTable = true
        address = unsafe netdev_load_relaxed_u64(table)
        word = unsafe netdev_load_relaxed_u64(table + 8)
        continue
      }

      guard readable + writable < size else { throw refuse(head, RingError(.chainLoop, UInt64(size))) }
      let isWritable = flags & DescriptorFlag.write != 0
      guard isWritable || writable == 0 else {
        throw refuse(head, RingError(.readableAfterWritable, UInt64(readable + writable)))
      }
      // At most 32768 lengths below 2³².
      bytes += UInt64(length)
      guard bytes <= 1 << 32 else { throw refuse(head, RingError(.chainOverlong, bytes)) }
      guard let base = unsafe memory.pointer(to: address, length: length, forWriting: isWritable) else {
        throw refuse(head, RingError(.bufferUnmapped, address))
      }
      // The storage holds the longest chain, so that one which does not fit is not the first of its batch.
      guard segmentCount + readable + writable < segmentCapacity else { return nil }
      unsafe (start + (readable + writable)).initialize(to: BufferSegment(base: base, length: Int(length)))
      if isWritable { writable += 1 } else { readable += 1 }

      guard flags & DescriptorFlag.next != 0 else { break }
      let next = UInt32(truncatingIfNeeded: word &>> 48)
      guard next < tableSize else { throw refuse(head, RingError(.nextOutOfRange, UInt64(next))) }
      let descriptor = unsafe table + 16 * Int(next)
      address = unsafe netdev_load_relaxed_u64(descriptor)
      word = unsafe netdev_load_relaxed_u64(descriptor + 8)
    }
    segmentCount += readable + writable
    availIndex &+= 1
    return unsafe DescriptorChain(
      head: UInt16(truncatingIfNeeded: head), readableCount: UInt16(truncatingIfNeeded: readable),
      writableCount: UInt16(truncatingIfNeeded: writable), places: 1, segments: start)
  }

  /// Returns the chain of `head` used with a length of 0, and breaks the ring if it was told to, or if it must.
  ///
  /// With IN_ORDER a chain cannot be returned before those taken earlier: while there are any, the ring breaks instead.
  private mutating func refuse(_ head: UInt32, _ error: RingError) -> RingError {
    malformedChains &+= 1
    availIndex &+= 1
    putBackFloor = availIndex
    let isOutOfOrder = inOrder && outstanding > 1
    // Not of a batch of those that were read completely.
    if !isOutOfOrder { pushUsed(head: UInt16(truncatingIfNeeded: head), written: 0, isReadOnly: false) }
    if isOutOfOrder || stopsAtMalformedChain { fail(error) }
    return error
  }
}
