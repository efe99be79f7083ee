import CNetdevSystem

extension SplitDeviceRing {
  /// What a ring is made of. It can be changed until `activate` consumes it; an active ring's configuration is fixed
  /// (a configuration that stayed changeable after its check was Firecracker's CVE-2026-5747).
  @safe
  public struct Configuration: ~Copyable {
    /// Number of descriptors: a power of two from 1 to 32768.
    public var size: Int
    /// The descriptor table: 16 bytes an entry, aligned to 16. The areas are the driver's and stay mapped.
    public var descriptors: UnsafeMutableRawPointer
    /// The available ring, aligned to 2.
    public var avail: UnsafeMutableRawPointer
    /// The used ring, aligned to 4.
    public var used: UnsafeMutableRawPointer
    /// EVENT_IDX was negotiated.
    public var eventIndex = false
    /// IN_ORDER was negotiated.
    public var inOrder = false
    /// INDIRECT_DESC was negotiated.
    public var indirect = false
    /// The first malformed chain breaks the ring, instead of being returned empty and left behind.
    public var stopsAtMalformedChain = false
    /// The index that the ring starts at: what a front-end gave as its base.
    public var startIndex: UInt16 = 0
    /// Segments that the chains of one batch may have together; raised to the size of the ring when it is lower.
    public var segmentCapacity = 0

    /// A ring of `size` descriptors in three areas whose sizes are those of `SplitRingLayout`.
    public init(
      size: Int, descriptors: UnsafeMutableRawPointer, avail: UnsafeMutableRawPointer, used: UnsafeMutableRawPointer
    ) {
      self.size = size
      unsafe self.descriptors = descriptors
      unsafe self.avail = avail
      unsafe self.used = used
    }

    /// A ring of `size` descriptors in one block laid out as `SplitRingLayout` says.
    ///
    /// - Throws: `RingError` for a size that no split ring has.
    public init(size: Int, block: UnsafeMutableRawPointer) throws(RingError) {
      let layout = try SplitRingLayout(size: size)
      unsafe self.init(
        size: size, descriptors: block, avail: block + layout.availOffset, used: block + layout.usedOffset)
    }

    /// A ring of `size` descriptors at three addresses of the driver, each in one region of `memory`.
    ///
    /// The used ring must be writable. Throws `.size`, or `.areaUnmapped` with the address.
    public init(
      size: Int, descriptorAddress: UInt64, availAddress: UInt64, usedAddress: UInt64, memory: borrowing GuestMemory
    ) throws(RingError) {
      let layout = try SplitRingLayout(size: size)
      guard
        let descriptors = unsafe memory.pointer(
          to: descriptorAddress, length: UInt32(layout.descriptorBytes), forWriting: false)
      else { throw RingError(.areaUnmapped, descriptorAddress) }
      guard let avail = unsafe memory.pointer(to: availAddress, length: UInt32(layout.availBytes), forWriting: false)
      else { throw RingError(.areaUnmapped, availAddress) }
      guard let used = unsafe memory.pointer(to: usedAddress, length: UInt32(layout.usedBytes), forWriting: true)
      else { throw RingError(.areaUnmapped, usedAddress) }
      unsafe self.init(size: size, descriptors: descriptors, avail: avail, used: used)
    }

    /// Checks the configuration and returns the ring. Throws a rule of configuration. No shared memory is written.
    public consuming func activate() throws(RingError) -> SplitDeviceRing {
      let layout = try SplitRingLayout(size: size)
      unsafe try layout.check(
        descriptors: UInt64(UInt(bitPattern: descriptors)), avail: UInt64(UInt(bitPattern: avail)),
        used: UInt64(UInt(bitPattern: used)))
      var ring = unsafe SplitDeviceRing(
        layout: layout, descriptors: descriptors, avail: avail, used: used,
        segmentCapacity: max(segmentCapacity, size), eventIndex: eventIndex, inOrder: inOrder, indirect: indirect,
        stopsAtMalformedChain: stopsAtMalformedChain)
      ring.start(at: startIndex)
      return ring
    }
  }

  /// Starts the ring anew at `startIndex`, after the driver has laid its areas anew. What was outstanding is forgotten.
  public mutating func reset(startIndex: UInt16 = 0) { start(at: startIndex) }

  private mutating func start(at startIndex: UInt16) {
    let index = UInt32(startIndex)
    availIndex = index
    availSeen = index
    usedIndex = index
    published = index
    callChecked = index
    rewindFloor = index
    segmentCount = 0
    callUnconditionally = true
    deferred = nil
    failure = nil
    malformedChains = 0
  }
}
