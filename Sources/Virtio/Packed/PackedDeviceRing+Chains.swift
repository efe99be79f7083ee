import CNetdevSystem

/// Chains of several buffers, indirect tables, and what to do with a chain that breaks a rule.
extension PackedDeviceRing {
  /// What is known of a chain while it is walked.
  private struct Walk {
    var readable = 0
    var writable = 0
    var bytes: UInt64 = 0
    /// The first rule that the chain broke: its further descriptors only lead to its end.
    var error: RingError?
    /// The batch has no room for its segments.
    var hasNoRoom = false
  }

  /// Follows the chain that begins with `head`, which has been copied.
  ///
  /// Every descriptor is copied once before it is looked at. The walk ends: a chain has no more descriptors than the ring, less
  /// those of the chains that the device has (VIRTIO 1.4 §2.8.17). Where a chain breaks a rule it is followed to its last
  /// descriptor all the same, whose id is the chain's. Nil when this batch has no room left for the chain; it is then the first
  /// of the next.
  @usableFromInline
  @inline(never)
  mutating func walk(_ head: Link, in memory: borrowing GuestMemory) throws(RingError) -> DescriptorChain? {
    var walk = Walk()
    var link = head
    var position = next
    var places: UInt32 = 1
    while true {
      guard places <= count &- held else {
        throw fail(places > 1 ? RingError(.chainLoop, UInt64(count)) : RingError(.availIndexJump, UInt64(next.index)))
      }
      if link.flags & DescriptorFlag.indirect == 0 {
        add(link.address, link.length, isWritable: link.flags & DescriptorFlag.write != 0, to: &walk, in: memory)
      } else if places > 1 || link.flags & DescriptorFlag.next != 0 {
        walk.error = walk.error ?? RingError(.indirectWithNext, UInt64(link.flags & ~DescriptorFlag.marks))
      } else {
        addTable(link, to: &walk, in: memory)
      }
      guard link.flags & DescriptorFlag.next != 0 else { break }
      position.advance(by: 1, size: count)
      places &+= 1
      // A place in the ring.
      let place = unsafe descriptors + 16 * Int(position.place)
      link = unsafe Link(place, netdev_load_relaxed_u16(place + 14))
    }
    // A malformed chain takes room as well: a batch ends, although the driver goes on and on.
    let isAtEnd = segmentCount == segmentCapacity
    if let error = walk.error, !isAtEnd { throw refuse(id: link.id, places: places, error) }
    // The storage holds the longest chain, so that one which does not fit is not the first of its batch.
    if walk.hasNoRoom || isAtEnd {
      isFull = true
      return nil
    }
    let start = unsafe segments + segmentCount
    segmentCount += walk.readable + walk.writable
    goOn(places)
    return unsafe DescriptorChain(
      head: link.id, readableCount: UInt16(truncatingIfNeeded: walk.readable),
      writableCount: UInt16(truncatingIfNeeded: walk.writable), places: UInt16(truncatingIfNeeded: places),
      segments: start)
  }

  /// Checks one buffer and stores its segment.
  private func add(
    _ address: UInt64, _ length: UInt32, isWritable: Bool, to walk: inout Walk, in memory: borrowing GuestMemory
  ) {
    guard walk.error == nil else { return }
    guard walk.readable + walk.writable < size else {
      walk.error = RingError(.chainLoop, UInt64(size))
      return
    }
    guard isWritable || walk.writable == 0 else {
      walk.error = RingError(.readableAfterWritable, UInt64(walk.readable + walk.writable))
      return
    }
    // At most 32768 lengths below 2³².
    walk.bytes += UInt64(length)
    guard walk.bytes <= 1 << 32 else {
      walk.error = RingError(.chainOverlong, walk.bytes)
      return
    }
    guard let base = unsafe memory.pointer(to: address, length: length, forWriting: isWritable) else {
      walk.error = RingError(.bufferUnmapped, address)
      return
    }
    let place = segmentCount + walk.readable + walk.writable
    if place < segmentCapacity {
      unsafe (segments + place).initialize(to: BufferSegment(base: base, length: Int(length)))
    } else {
      walk.hasNoRoom = true
    }
    if isWritable { walk.writable += 1 } else { walk.readable += 1 }
  }

  /// Adds the buffers of an indirect table, whose descriptors follow one another and where only WRITE means anything (§2.8.7).
  private func addTable(_ link: Link, to walk: inout Walk, in memory: borrowing GuestMemory) {
    let flags = UInt64(link.flags & ~DescriptorFlag.marks)
    guard indirect else {
      walk.error = RingError(.indirectNotNegotiated, flags)
      return
    }
    guard link.length % 16 == 0, link.length != 0, link.length / 16 <= count else {
      walk.error = RingError(.indirectLength, UInt64(link.length))
      return
    }
    guard let table = unsafe memory.pointer(to: link.address, length: link.length, forWriting: false) else {
      walk.error = RingError(.bufferUnmapped, link.address)
      return
    }
    guard UInt(bitPattern: table) % 8 == 0 else {
      walk.error = RingError(.indirectAlignment, link.address)
      return
    }
    for index in 0..<Int(link.length / 16) {
      // Inside the length that was translated.
      let place = unsafe table + 16 * index
      let word = unsafe netdev_load_relaxed_u64(place + 8)
      let flags = UInt16(truncatingIfNeeded: word &>> 48)
      guard flags & DescriptorFlag.indirect == 0 else {
        walk.error = walk.error ?? RingError(.indirectNested, UInt64(flags))
        return
      }
      add(
        unsafe netdev_load_relaxed_u64(place), UInt32(truncatingIfNeeded: word),
        isWritable: flags & DescriptorFlag.write != 0, to: &walk, in: memory)
    }
  }

  /// Returns a chain of so many descriptors used with a length of 0, and breaks the ring if it was told to, or if it must.
  ///
  /// With IN_ORDER a chain cannot be returned before those taken earlier: while there are any, the ring breaks instead.
  private mutating func refuse(id: UInt16, places: UInt32, _ error: RingError) -> RingError {
    malformedChains &+= 1
    segmentCount += 1
    goOn(places)
    recallable = 0
    let isOutOfOrder = inOrder && outstanding > 1
    if !isOutOfOrder {
      // Not of a batch of those that were read completely.
      flushBatch()
      put(id: id, places: places, count: 1, written: 0)
    }
    if isOutOfOrder || stopsAtMalformedChain { fail(error) }
    return error
  }
}
