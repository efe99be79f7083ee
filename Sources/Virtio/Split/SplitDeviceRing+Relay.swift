public import CNetdevSystem

/// From one ring straight to another, for a device that carries frames between the two.
extension SplitDeviceRing {
  /// Takes pairs of chains, one buffer to read from this ring and one buffer to write from `target`, gives each pair to `body`,
  /// and returns both.
  @inlinable
  @inline(__always)
  public mutating func relay(
    to target: inout SplitDeviceRing, max: Int, in memory: borrowing GuestMemory,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    // Where writing needs a closer look, everything goes step by step.
    guard memory.firstIsWritable else { return 0 }
    let limit = least(Swift.max(max, 0), seen, target.seen)
    target.flushBatch()
    // Two loops, so that neither asks for each packet which one it is.
    if inOrder { return relayInOrder(to: &target, limit, memory.first(), body) }
    return relayAny(to: &target, limit, memory.first(), body)
  }

  /// Heads may be any, and come back one by one.
  @inlinable
  @inline(__always)
  mutating func relayAny(
    to target: inout SplitDeviceRing, _ limit: Int, _ memory: FirstRegion,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    let (sourceTable, targetTable) = unsafe (descriptors, target.descriptors)
    let (sourceMask, targetMask) = (mask, target.mask)
    var done = 0
    while done != limit {
      // Up to where one of the four positions comes to its ring's end: so far pointers go straight on.
      let run = least(
        limit &- done, min(sourceMask.straightRun(from: availIndex), sourceMask.straightRun(from: usedIndex)),
        min(targetMask.straightRun(from: target.availIndex), targetMask.straightRun(from: target.usedIndex)))
      // Masked to the rings' sizes.
      let sourceEntries = unsafe availEntries + 2 * Int(availIndex & sourceMask)
      let sourceElements = unsafe usedEntries + 8 * Int(usedIndex & sourceMask)
      let targetEntries = unsafe target.availEntries + 2 * Int(target.availIndex & targetMask)
      let targetElements = unsafe target.usedEntries + 8 * Int(target.usedIndex & targetMask)
      var position = 0
      while position != run {
        let sourceHead = UInt32(unsafe netdev_load_relaxed_u16(sourceEntries + 2 &* position))
        let targetHead = UInt32(unsafe netdev_load_relaxed_u16(targetEntries + 2 &* position))
        guard sourceHead <= sourceMask, targetHead <= targetMask,
          let source = unsafe Self.buffer(sourceTable + 16 * Int(sourceHead), flags: 0, in: memory),
          let destination = unsafe Self.buffer(
            targetTable + 16 * Int(targetHead), flags: DescriptorFlag.write, in: memory),
          let written = body(source, destination)
        else { break }
        unsafe netdev_store_relaxed_u32(sourceElements + 8 &* position, sourceHead)
        unsafe netdev_store_relaxed_u32(sourceElements + 8 &* position + 4, 0)
        unsafe netdev_store_relaxed_u32(targetElements + 8 &* position, targetHead)
        unsafe netdev_store_relaxed_u32(targetElements + 8 &* position + 4, written)
        position &+= 1
      }
      let step = UInt32(truncatingIfNeeded: position)
      availIndex &+= step
      usedIndex &+= step
      target.availIndex &+= step
      target.usedIndex &+= step
      done &+= position
      if position != run { break }
    }
    return done
  }

  /// With IN_ORDER a driver takes its descriptors in turn (VIRTIO 1.4 §2.7.9), and what was only read becomes one batch.
  ///
  /// Pointers go straight on as long as each head is the one after its predecessor: then a pair needs no look at the rings' sizes,
  /// which would take registers that there are not. A driver that breaks its word makes runs of one.
  @inlinable
  @inline(__always)
  mutating func relayInOrder(
    to target: inout SplitDeviceRing, _ limit: Int, _ memory: FirstRegion,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    var done = 0
    while done != limit {
      let (sourcePlace, targetPlace) = (availIndex & mask, target.availIndex & target.mask)
      let sourceEntries = unsafe availEntries + 2 * Int(sourcePlace)
      let targetEntries = unsafe target.availEntries + 2 * Int(targetPlace)
      let firstSource = UInt32(unsafe netdev_load_relaxed_u16(sourceEntries))
      let firstTarget = UInt32(unsafe netdev_load_relaxed_u16(targetEntries))
      guard firstSource <= mask, firstTarget <= target.mask else { break }
      // Up to where one of the positions, or of the heads, comes to its ring's end.
      let run = least(
        limit &- done, Int(mask &+ 1 &- max(sourcePlace, firstSource)),
        min(
          Int(target.mask &+ 1 &- max(targetPlace, firstTarget)), target.mask.straightRun(from: target.usedIndex)))
      let sourceTable = unsafe descriptors + 16 * Int(firstSource)
      let targetTable = unsafe target.descriptors + 16 * Int(firstTarget)
      let targetElements = unsafe target.usedEntries + 8 * Int(target.usedIndex & target.mask)
      var position = 0
      while position != run {
        let sourceHead = firstSource &+ UInt32(truncatingIfNeeded: position)
        let targetHead = firstTarget &+ UInt32(truncatingIfNeeded: position)
        // What was read above counts, whatever is there now.
        guard unsafe netdev_load_relaxed_u16(sourceEntries + 2 &* position) == UInt16(truncatingIfNeeded: sourceHead),
          unsafe netdev_load_relaxed_u16(targetEntries + 2 &* position) == UInt16(truncatingIfNeeded: targetHead),
          let source = unsafe Self.buffer(sourceTable + 16 &* position, flags: 0, in: memory),
          let destination = unsafe Self.buffer(targetTable + 16 &* position, flags: DescriptorFlag.write, in: memory),
          let written = body(source, destination)
        else { break }
        unsafe netdev_store_relaxed_u32(targetElements + 8 &* position, targetHead)
        unsafe netdev_store_relaxed_u32(targetElements + 8 &* position + 4, written)
        position &+= 1
      }
      // A pair that is not of the simple kind ends the next run before its beginning.
      guard position != 0 else { break }
      let step = UInt32(truncatingIfNeeded: position)
      availIndex &+= step
      target.availIndex &+= step
      target.usedIndex &+= step
      joinBatch(head: UInt16(truncatingIfNeeded: firstSource &+ step &- 1), count: step)
      done &+= position
    }
    return done
  }

  /// Copies a descriptor once, in three loads of which each is checked by itself; its buffer, if it has exactly these of the flags
  /// that matter and lies in the first region.
  @inlinable
  @inline(__always)
  static func buffer(_ descriptor: UnsafeMutableRawPointer, flags: UInt16, in memory: FirstRegion) -> BufferSegment? {
    let address = unsafe netdev_load_relaxed_u64(descriptor)
    let length = unsafe netdev_load_relaxed_u32(descriptor + 8)
    let found = UInt16(truncatingIfNeeded: unsafe netdev_load_relaxed_u32(descriptor + 12))
    let mattering = DescriptorFlag.next | DescriptorFlag.indirect | DescriptorFlag.write
    guard found & mattering == flags, let base = unsafe memory.place(of: address, length: length) else {
      return nil
    }
    return unsafe BufferSegment(base: base, length: Int(length))
  }
}
