import CNetdevSystem

/// Memory for a driver's indirect descriptor tables: one table for each descriptor of the ring.
@frozen
@safe
public struct IndirectTables {
  /// `size` tables of `capacity` descriptors each, aligned to 16 bytes. The caller's; outlives the ring.
  public let host: UnsafeMutableRawPointer
  /// The same memory as the device knows it.
  public let address: UInt64
  /// Descriptors in each table.
  public let capacity: Int

  /// Tables of `capacity` descriptors, one for each descriptor of a ring, in the caller's memory.
  public init(host: UnsafeMutableRawPointer, address: UInt64, capacity: Int) {
    unsafe self.host = host
    self.address = address
    self.capacity = capacity
  }
}

extension SplitDriverRing {
  /// What a ring is made of. It can be changed until `activate` consumes it; an active ring's configuration is fixed.
  @safe
  public struct Configuration: ~Copyable {
    /// Number of descriptors: a power of two from 1 to 32768.
    public var size: Int
    /// The descriptor table: 16 bytes an entry, aligned to 16. The areas are the caller's and outlive the ring.
    public var descriptors: UnsafeMutableRawPointer
    /// The available ring, aligned to 2.
    public var avail: UnsafeMutableRawPointer
    /// The used ring, aligned to 4.
    public var used: UnsafeMutableRawPointer
    /// EVENT_IDX was negotiated.
    public var eventIndex = false
    /// IN_ORDER was negotiated.
    public var inOrder = false
    /// INDIRECT_DESC was negotiated and these are the tables; nil to put every buffer in the ring itself.
    public var indirect: IndirectTables?
    /// The index that the ring starts at, usually 0.
    public var startIndex: UInt16 = 0

    /// A ring of `size` descriptors in three areas whose sizes are those of `SplitRingLayout`.
    public init(
      size: Int, descriptors: UnsafeMutableRawPointer, avail: UnsafeMutableRawPointer, used: UnsafeMutableRawPointer
    ) {
      self.size = size
      unsafe self.descriptors = descriptors
      unsafe self.avail = avail
      unsafe self.used = used
    }

    /// A ring of `size` descriptors in one block of `SplitRingLayout.totalBytes`, aligned to 16.
    ///
    /// - Throws: `RingError` for a size that no split ring has.
    public init(size: Int, block: UnsafeMutableRawPointer) throws(RingError) {
      let layout = try SplitRingLayout(size: size)
      unsafe self.init(
        size: size, descriptors: block, avail: block + layout.availOffset, used: block + layout.usedOffset)
    }

    /// Checks the configuration, clears the ring's memory, and returns the ring.
    ///
    /// The device must not have been given the memory yet. Throws a rule of configuration and has then written nothing.
    public consuming func activate() throws(RingError) -> SplitDriverRing {
      let layout = try SplitRingLayout(size: size)
      unsafe try layout.check(
        descriptors: UInt64(UInt(bitPattern: descriptors)), avail: UInt64(UInt(bitPattern: avail)),
        used: UInt64(UInt(bitPattern: used)))
      if let indirect {
        guard indirect.capacity >= 2, indirect.capacity <= SplitRingLayout.maximumSize else {
          throw RingError(.indirectMemory, UInt64(truncatingIfNeeded: indirect.capacity))
        }
        guard unsafe UInt(bitPattern: indirect.host) % 16 == 0, indirect.address % 16 == 0 else {
          throw RingError(.indirectMemory, indirect.address)
        }
      }
      var ring = unsafe SplitDriverRing(
        layout: layout, descriptors: descriptors, avail: avail, used: used, eventIndex: eventIndex, inOrder: inOrder,
        indirect: indirect)
      ring.lay(startIndex: startIndex)
      return ring
    }
  }
}

extension SplitDriverRing {
  /// Takes every token out of the ring, in table order, and says how many there were: once, after a confirmed reset.
  ///
  /// Before the reset is confirmed the device may still use the buffers (§3.3.1). The ring then refuses work until `reset`.
  @discardableResult
  public mutating func drain(_ body: (UInt64) -> Void) -> Int {
    fail(RingError(.drained, 0))
    var count = 0
    for id in 0..<size {
      // Below the size.
      let entry = unsafe shadow.entries + id
      guard unsafe entry.pointee.count != 0 else { continue }
      unsafe entry.pointee.count = 0
      count += 1
      body(unsafe entry.pointee.token)
    }
    return count
  }

  /// Lays the ring anew at `startIndex`, as `activate` does: after a confirmed reset, when `drain` has emptied it.
  ///
  /// Throws `.outstanding` while the ring still holds tokens.
  public mutating func reset(startIndex: UInt16 = 0) throws(RingError) {
    var outstanding = 0
    for id in 0..<size where unsafe shadow.entries[id].count != 0 { outstanding += 1 }
    guard outstanding == 0 else { throw RingError(.outstanding, UInt64(outstanding)) }
    lay(startIndex: startIndex)
  }

  /// Clears the shared areas and the private state; both indices start at `startIndex`.
  mutating func lay(startIndex: UInt16) {
    unsafe descriptors.initializeMemory(as: UInt8.self, repeating: 0, count: 16 * size)
    unsafe (availEntries - 4).initializeMemory(as: UInt8.self, repeating: 0, count: 6 + 2 * size)
    unsafe (usedEntries - 4).initializeMemory(as: UInt8.self, repeating: 0, count: 6 + 8 * size)
    unsafe netdev_store_release_u16(availEntries - 2, startIndex)
    unsafe netdev_store_release_u16(usedEntries - 2, startIndex)
    let index = UInt32(startIndex)
    availIndex = index
    published = index
    kickChecked = index
    usedIndex = index
    usedSeen = index
    batchRemaining = 0
    batchWritten = 0
    kickUnconditionally = true
    shadow.clear()
    failure = nil
  }
}
