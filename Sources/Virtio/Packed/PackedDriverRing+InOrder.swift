public import CNetdevSystem

// Chains that come back in the order in which they went out. With IN_ORDER one used descriptor stands for a batch, with the last
// one's id, where the first one of the batch was, and the next follows behind the batch (VIRTIO 1.4 §2.8.8).
extension PackedDriverRing {
  /// As `takeSingles`, while chains come in order.
  ///
  /// The id is the place, so the oldest chain is where the next used descriptor belongs, and while every chain has one descriptor
  /// a batch is as long as the places are apart.
  @inlinable
  @inline(__always)
  mutating func takeOrderly(
    _ limit: Int, _ body: (_ position: Int, _ token: UInt64, _ written: UInt32) -> Bool
  ) -> Int {
    guard several == 0 else {
      othersSeen = hasUsed
      return 0
    }
    var done = 0
    var isSecondLook = false
    while done != limit {
      // Up to where the ring comes round: so far pointers go straight on.
      let left = min(limit &- done, Int(count &- usedNext.place))
      let entries = unsafe shadow.entries + Int(usedNext.place)
      var position = 0
      var run: Int
      if batchRemaining != 0 {
        run = min(left, Int(batchRemaining))
        while position != run {
          let entry = unsafe entries + position
          guard body(done &+ position, unsafe entry.pointee.token, unsafe entry.pointee.writable) else {
            othersSeen = true
            break
          }
          unsafe entry.pointee.count = 0
          position &+= 1
        }
        batchRemaining &-= UInt32(truncatingIfNeeded: position)
      } else {
        run = left
        let place = unsafe descriptors + (16 * Int(usedNext.place) + 12)
        // Id and flags of the next used descriptor, if it is like the ones before it: one load and one comparison. Aligned words are
        // loaded whole: with flags that the device has just stored comes the id that it stored before them.
        var expected = usedNext.place | UInt32(usedNext.marks | usedKind) &<< 16
        while position != run, unsafe netdev_load_acquire_u32(place + 16 &* position) == expected {
          let written = unsafe netdev_load_relaxed_u32(place + (16 &* position &- 4))
          let entry = unsafe entries + position
          guard unsafe written <= entry.pointee.writable,
            body(done &+ position, unsafe entry.pointee.token, written)
          else {
            othersSeen = true
            break
          }
          unsafe entry.pointee.count = 0
          expected &+= 1
          position &+= 1
        }
      }
      let step = UInt32(truncatingIfNeeded: position)
      returned &+= step
      free &+= step
      usedNext.advance(by: step, size: count)
      done &+= position
      if position != 0 { isSecondLook = false }
      guard position != run else { continue }
      // What stands there is of another kind once, and then of this: what a device changes under our eyes is left to `nextUsed`, which
      // reads it once.
      if position == 0 && isSecondLook { othersSeen = true }
      if othersSeen { break }
      isSecondLook = true
      guard goesOn() else { break }
    }
    return done
  }

  /// Looks at what is not like the used descriptors before it: whether there is anything to go on with, in order.
  @usableFromInline
  @inline(never)
  mutating func goesOn() -> Bool {
    // A place in the ring. Read once each, the flags first.
    let place = unsafe descriptors + 16 * Int(usedNext.place)
    let flags = unsafe netdev_load_acquire_u16(place + 14)
    guard flags & DescriptorFlag.marks == usedNext.marks else { return false }
    let written = unsafe netdev_load_relaxed_u32(place + 8)
    let id = UInt32(unsafe netdev_load_relaxed_u16(place + 12))
    usedKind = flags & ~DescriptorFlag.marks
    if id == usedNext.place { return true }
    guard inOrder else {
      becomeDisorderly()
      return false
    }
    othersSeen = !beginBatch(to: id, ofSingles: written)
    return !othersSeen
  }

  /// A used descriptor that is not of the oldest chain ends a batch if it is honest: checks it, and notes how many chains it
  /// stands for. What is not honest is left to `nextUsed`.
  private mutating func beginBatch(to id: UInt32, ofSingles written: UInt32) -> Bool {
    guard id < count else { return false }
    // One descriptor a chain, so places count chains.
    let first = usedNext.place
    let length = (id >= first ? id &- first : id &+ count &- first) &+ 1
    guard length <= published &- returned, unsafe written <= shadow.entries[Int(id)].writable else { return false }
    beginBatch(of: length, to: id, written)
    return true
  }

  /// All chains of a batch but the last have been used completely, and nothing says so; the last one has room for no more than was
  /// written into it. So each comes back with what it has room for.
  private mutating func beginBatch(of length: UInt32, to id: UInt32, _ written: UInt32) {
    batchRemaining = length
    // The caller has seen that it is below the size.
    unsafe shadow.entries[Int(id)].writable = written
  }

  /// The same, whatever chains there are, step by step; `id` is that of an outstanding chain.
  ///
  /// - Throws: `.usedOutOfOrder` when it ends no batch of chains that are in flight.
  @usableFromInline
  mutating func beginBatch(to id: UInt32, _ written: UInt32) throws(RingError) {
    let pending = published &- returned
    var position = usedNext
    var length: UInt32 = 1
    while position.place != id {
      length &+= 1
      guard length <= pending else { throw fail(RingError(.usedOutOfOrder, UInt64(id))) }
      // Among the published chains, whose first places have a count.
      position.advance(by: UInt32(unsafe shadow.entries[Int(position.place)].count), size: count)
    }
    beginBatch(of: length, to: id, written)
  }

  /// Hands out the oldest chain of a batch.
  @usableFromInline
  mutating func takeOldest() -> UsedBuffer {
    let place = Int(usedNext.place)
    let entry = unsafe shadow.entries[place]
    batchRemaining &-= 1
    unsafe shadow.entries[place].count = 0
    finish(entry)
    return UsedBuffer(token: entry.token, written: entry.writable)
  }
}
