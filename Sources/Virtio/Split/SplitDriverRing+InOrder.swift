public import CNetdevSystem

// Descriptors are taken in table order and chains come back in the order in which they went out: promised with IN_ORDER, where one
// used element may stand for a batch (VIRTIO 1.4 §2.7.9), and so with most devices without it.
extension SplitDriverRing {
  /// The oldest outstanding chain, when the device returns chains in order.
  ///
  /// One used element may stand for a batch: its id is the last chain's, `used.idx` advances by the whole batch, and the
  /// chains before the last were used completely (VIRTIO 1.4 §2.7.9). The next element follows after the batch.
  @usableFromInline
  mutating func nextUsedInOrder() throws(RingError) -> UsedBuffer {
    // Descriptors go out in table order and come back in it, so the oldest head follows what has been returned.
    let oldest = circle.returned & mask
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
      beginBatch(of: length, to: id, written)
    }
    let entry = unsafe shadow.entries[Int(oldest)]
    if entry.count > 1 { several &-= 1 }
    batchRemaining &-= 1
    usedIndex &+= 1
    unsafe shadow.entries[Int(oldest)].count = 0
    circle.putChain(head: UInt16(truncatingIfNeeded: oldest), count: entry.count, links: shadow)
    return UsedBuffer(token: entry.token, written: entry.writable)
  }

  /// As `takeSingles`, up to `count` chains that have been seen, while chains come in order.
  ///
  /// The oldest descriptor is known, and so is what an honest element says: only a batch's last id has to be looked at, and while
  /// every chain has one descriptor the batch is as long as the ids are apart.
  @inlinable
  @inline(__always)
  mutating func takeOrderly(
    _ count: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    guard several == 0 else { return 0 }
    let mask = mask
    var isOutOfOrder = false
    var done = 0
    while done != count {
      // Up to where one of the two circles comes round: so far pointers go straight on.
      let left = min(count &- done, mask.straightRun(from: circle.returned))
      let oldest = circle.returned & mask
      let entries = unsafe shadow.entries + Int(oldest)
      var position = 0
      var run: Int
      if inOrder, batchRemaining == 0 {
        // Where buffers are only read, nearly every element stands for a batch. One that does not is read below.
        let element = unsafe usedEntries + 8 * Int(usedIndex & mask)
        let id = unsafe netdev_load_relaxed_u32(element)
        let written = unsafe netdev_load_relaxed_u32(element + 4)
        if id != oldest, !beginBatch(after: 0, to: id, written) { break }
      }
      if batchRemaining != 0 {
        run = min(left, Int(batchRemaining))
        while position != run {
          let entry = unsafe entries + position
          guard body(done &+ position, unsafe entry.pointee.token, unsafe entry.pointee.writable) else { break }
          unsafe entry.pointee.count = 0
          position &+= 1
        }
        batchRemaining &-= UInt32(truncatingIfNeeded: position)
      } else {
        run = min(left, mask.straightRun(from: usedIndex))
        let elements = unsafe usedEntries + 8 * Int(usedIndex & mask)
        var isBatch = false
        while position != run {
          // Read once each, then only the copies are looked at.
          let id = unsafe netdev_load_relaxed_u32(elements + 8 &* position)
          let written = unsafe netdev_load_relaxed_u32(elements + 8 &* position + 4)
          let entry = unsafe entries + position
          guard id == oldest &+ UInt32(truncatingIfNeeded: position) else {
            if inOrder {
              isBatch = beginBatch(after: UInt32(truncatingIfNeeded: position), to: id, written)
            } else {
              isOutOfOrder = true
            }
            break
          }
          guard unsafe written <= entry.pointee.writable,
            body(done &+ position, unsafe entry.pointee.token, written)
          else { break }
          unsafe entry.pointee.count = 0
          position &+= 1
        }
        // A batch goes on above.
        if isBatch { run = position }
      }
      circle.returned &+= UInt32(truncatingIfNeeded: position)
      usedIndex &+= UInt32(truncatingIfNeeded: position)
      done &+= position
      if position != run { break }
    }
    if isOutOfOrder { becomeDisorderly() }
    return done
  }

  /// An element that is not of the oldest chain, after `position` others, ends a batch if it is honest: checks it, and notes how
  /// many chains it stands for. What is not honest is left to `nextUsed`.
  @usableFromInline
  mutating func beginBatch(after position: UInt32, to id: UInt32, _ written: UInt32) -> Bool {
    // One descriptor a chain, so ids count chains.
    let length = ((id &- circle.returned &- position) & mask) &+ 1
    guard id <= mask, length <= usedSeen &- usedIndex &- position,
      unsafe written <= shadow.entries[Int(id)].writable
    else { return false }
    beginBatch(of: length, to: id, written)
    return true
  }

  /// All chains of a batch but the last have been used completely, and nothing says so; the last one has room for no more than was
  /// written into it. So each comes back with what it has room for.
  @inlinable
  @inline(__always)
  mutating func beginBatch(of length: UInt32, to id: UInt32, _ written: UInt32) {
    batchRemaining = length
    // The caller has seen that it is below the size.
    unsafe shadow.entries[Int(id)].writable = written
  }
}
