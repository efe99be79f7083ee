/// What a driver's ring is made of. It can be changed until `activate` consumes it; an active ring's configuration is fixed.
@safe
public struct DriverRingConfiguration<Ring: DriverRing & ~Copyable>: ~Copyable {
  /// Where the ring lies: of a size that `RingLayout` allows, in areas that are the caller's and outlive the ring.
  public var areas: RingAreas
  /// EVENT_IDX was negotiated.
  public var eventIndex = false
  /// IN_ORDER was negotiated.
  public var inOrder = false
  /// INDIRECT_DESC was negotiated and these are the tables; nil to put every buffer in the ring itself.
  public var indirect: IndirectTables?
  /// The index that both sides start at: of a packed ring a place, with the wrap counter in bit 15.
  public var startIndex: UInt16

  /// A ring in these areas.
  public init(_ areas: RingAreas) {
    self.areas = areas
    startIndex = areas.startIndex ?? Ring.format.firstIndex
  }

  /// A ring of `size` descriptors in one block of `RingLayout.totalBytes`, aligned to 16.
  ///
  /// - Throws: `RingError` for a size that no ring of this format has.
  public init(size: Int, block: UnsafeMutableRawPointer) throws(RingError) {
    self.init(try unsafe RingAreas(Ring.format, size: size, block: block))
  }

  /// Checks the configuration, clears the ring's memory, and returns the ring.
  ///
  /// The device must not have been given the memory yet.
  ///
  /// - Throws: a rule of configuration; nothing has then been written.
  public consuming func activate() throws(RingError) -> Ring { try Ring(activating: self) }

  /// The layout, when everything fits it.
  borrowing func checkedLayout() throws(RingError) -> RingLayout {
    let layout = try areas.checkedLayout(Ring.format, startIndex: startIndex)
    try indirect?.check()
    return layout
  }
}

/// What a device's ring is made of. It can be changed until `activate` consumes it; an active ring's configuration is fixed
/// (a configuration that stayed changeable after its check was Firecracker's CVE-2026-5747).
@safe
public struct DeviceRingConfiguration<Ring: DeviceRing & ~Copyable>: ~Copyable {
  /// Where the ring lies: of a size that `RingLayout` allows, in areas that are the driver's and stay mapped.
  public var areas: RingAreas
  /// EVENT_IDX was negotiated.
  public var eventIndex = false
  /// IN_ORDER was negotiated.
  public var inOrder = false
  /// INDIRECT_DESC was negotiated.
  public var indirect = false
  /// The first malformed chain breaks the ring, instead of being returned empty and left behind.
  public var stopsAtMalformedChain = false
  /// The index that the ring starts at, what a front-end gave as its base: of a packed ring a place, with the wrap counter in
  /// bit 15.
  public var startIndex: UInt16
  /// Segments that the chains of one batch may have together; raised to the size of the ring when it is lower.
  public var segmentCapacity = 0

  /// A ring in these areas.
  public init(_ areas: RingAreas) {
    self.areas = areas
    startIndex = areas.startIndex ?? Ring.format.firstIndex
  }

  /// A ring of `size` descriptors in one block laid out as `RingLayout` says.
  ///
  /// - Throws: `RingError` for a size that no ring of this format has.
  public init(size: Int, block: UnsafeMutableRawPointer) throws(RingError) {
    self.init(try unsafe RingAreas(Ring.format, size: size, block: block))
  }

  /// Checks the configuration and returns the ring. No shared memory is written.
  ///
  /// - Throws: a rule of configuration.
  public consuming func activate() throws(RingError) -> Ring { try Ring(activating: self) }

  /// The layout, when everything fits it.
  borrowing func checkedLayout() throws(RingError) -> RingLayout {
    try areas.checkedLayout(Ring.format, startIndex: startIndex)
  }
}
