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
    if inOrder { return relay(to: &target, limit, isBatch: true, in: memory, body) }
    return relay(to: &target, limit, isBatch: false, in: memory, body)
  }

  /// `isBatch` is a literal: with IN_ORDER the sources become one batch.
  @inlinable
  @inline(__always)
  mutating func relay(
    to target: inout SplitDeviceRing, _ limit: Int, isBatch: Bool, in memory: borrowing GuestMemory,
    _ body: (_ source: BufferSegment, _ destination: BufferSegment) -> UInt32?
  ) -> Int {
    let (sourceTable, targetTable) = unsafe (descriptors, target.descriptors)
    let memory = memory.first()
    let (sourceMask, targetMask) = (mask, target.mask)
    var done = 0
    var lastHead: UInt32 = 0
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
          let source = unsafe Self.buffer(sourceHead, sourceTable, flags: 0, in: memory),
          let destination = unsafe Self.buffer(targetHead, targetTable, flags: DescriptorFlag.write, in: memory),
          let written = body(source, destination)
        else { break }
        if isBatch {
          lastHead = sourceHead
        } else {
          unsafe netdev_store_relaxed_u32(sourceElements + 8 &* position, sourceHead)
          unsafe netdev_store_relaxed_u32(sourceElements + 8 &* position + 4, 0)
        }
        unsafe netdev_store_relaxed_u32(targetElements + 8 &* position, targetHead)
        unsafe netdev_store_relaxed_u32(targetElements + 8 &* position + 4, written)
        position &+= 1
      }
      let step = UInt32(truncatingIfNeeded: position)
      availIndex &+= step
      if !isBatch { usedIndex &+= step }
      target.availIndex &+= step
      target.usedIndex &+= step
      done &+= position
      if position != run { break }
    }
    if isBatch, done != 0 {
      joinBatch(head: UInt16(truncatingIfNeeded: lastHead), count: UInt32(truncatingIfNeeded: done))
    }
    return done
  }

  /// Copies descriptor `head`, which is below the size, once, in three loads of which each is checked by itself; its buffer,
  /// if it has exactly these of the flags that matter and lies in the first region.
  @inlinable
  @inline(__always)
  static func buffer(
    _ head: UInt32, _ table: UnsafeMutableRawPointer, flags: UInt16, in memory: FirstRegion
  ) -> BufferSegment? {
    let descriptor = unsafe table + 16 * Int(head)
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
