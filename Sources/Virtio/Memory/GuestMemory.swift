/// A stretch of memory that a peer may name by address: where it is for the peer, and where it is mapped here.
@frozen
@safe
public struct GuestRegion {
  /// First address as the peer writes it: an I/O virtual, guest physical or user address.
  public let address: UInt64
  /// Length in bytes.
  public let length: UInt64
  /// Where the first byte is mapped. The mapping is the caller's and outlives the `GuestMemory` made of it.
  public let host: UnsafeMutableRawPointer
  /// False when the mapping is read-only: a buffer to write is then refused.
  public let isWritable: Bool

  /// A region of `length` bytes at peer address `address`, mapped at `host`.
  @inlinable
  public init(address: UInt64, length: UInt64, host: UnsafeMutableRawPointer, isWritable: Bool = true) {
    self.address = address
    self.length = length
    unsafe self.host = host
    self.isWritable = isWritable
  }
}

/// Why an address of the peer was refused.
@frozen
public enum GuestMemoryError: Error, Hashable, Sendable {
  /// `address` + `length` runs past 2⁶⁴.
  case overflow(address: UInt64, length: UInt64)
  /// No region holds the first byte.
  case unmapped(address: UInt64)
  /// The first byte is mapped, the last is not in the same region.
  case spansRegions(address: UInt64, length: UInt64)
  /// The region is read-only.
  case readOnly(address: UInt64)
  /// A region is empty, runs past the end of its address space, or overlaps another.
  case badRegion(address: UInt64, length: UInt64)
  /// More regions than `GuestMemory.maximumRegions`.
  case tooManyRegions(Int)
}

/// The memory that a peer may name: the only way from an address in a ring to a pointer.
///
/// Every look-up checks overflow, mapping, the end of the region, and whether writing is allowed; a range is never pieced
/// together from two regions (CVE-2018-1059 was a length checked at its start alone). The largest region is looked at first
/// and inline; the others, up to 64, are searched in turn. A `GuestMemory` never changes: when a front-end changes its
/// table, rings get another one. It does not own the mappings.
@frozen
@safe
public struct GuestMemory: ~Copyable, @unchecked Sendable {
  // Proof of Sendable: every property is constant, and so is what `regions` points to from the end of `init` to `deinit`,
  // which runs when its one owner lets go. The mappings behind the hosts are only pointed to: nothing here touches them.

  // The first region, kept in the struct; its length is zero when there is none.
  @usableFromInline let firstAddress: UInt64
  @usableFromInline let firstLength: UInt64
  @usableFromInline let firstHost: UnsafeMutableRawPointer
  @usableFromInline let firstIsWritable: Bool
  /// All regions, the first included. Owned; trivial elements.
  @usableFromInline let regions: UnsafeMutablePointer<GuestRegion>
  /// How many regions there are.
  public let regionCount: Int

  /// The most regions that one memory has.
  public static let maximumRegions = 64

  /// Memory made of `regions`; throws when one is empty, overflows, or overlaps another, or when there are too many.
  public init(_ regions: [GuestRegion]) throws(GuestMemoryError) {
    guard regions.count <= Self.maximumRegions else { throw .tooManyRegions(regions.count) }
    for (index, region) in regions.enumerated() {
      let host = unsafe UInt64(UInt(bitPattern: region.host))
      guard region.length > 0, region.length <= UInt64(Int.max),
        !region.address.addingReportingOverflow(region.length - 1).overflow,
        !host.addingReportingOverflow(region.length - 1).overflow
      else { throw .badRegion(address: region.address, length: region.length) }
      for other in regions[..<index]
      where region.address <= other.address + (other.length - 1)
        && other.address <= region.address + (region.length - 1)
      {
        throw .badRegion(address: region.address, length: region.length)
      }
    }
    let sorted = regions.sorted { $0.length > $1.length }
    unsafe self.regions = .allocate(capacity: max(sorted.count, 1))
    for (index, region) in sorted.enumerated() { unsafe (self.regions + index).initialize(to: region) }
    regionCount = sorted.count
    firstAddress = sorted.first?.address ?? 0
    firstLength = sorted.first?.length ?? 0
    unsafe firstHost = sorted.first?.host ?? UnsafeMutableRawPointer(self.regions)
    firstIsWritable = sorted.first?.isWritable ?? false
  }

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit { unsafe regions.deallocate() }

  /// The pointer to `length` bytes at `address`, or nil when any of them may not be accessed so.
  ///
  /// A length of zero is allowed at any mapped address and at the end of a region. The pointer is good as long as the mapping.
  @inlinable
  @inline(__always)
  public borrowing func pointer(to address: UInt64, length: UInt32, forWriting: Bool) -> UnsafeMutableRawPointer? {
    if !forWriting || firstIsWritable, let pointer = unsafe firstPointer(to: address, length: length) {
      return unsafe pointer
    }
    return unsafe otherPointer(to: address, length: UInt64(length), forWriting: forWriting)
  }

  /// The pointer to `length` bytes at `address` when they lie in the largest region, whether it is writable or not; else nil,
  /// which says nothing. Zero bytes are never found here.
  @inlinable
  @inline(__always)
  borrowing func firstPointer(to address: UInt64, length: UInt32) -> UnsafeMutableRawPointer? {
    // Wraps for an address below the region, to something no smaller than its length.
    let offset = address &- firstAddress
    let remaining = offset < firstLength ? firstLength &- offset : 0
    // A length of zero wraps.
    return UInt64(length) &- 1 < remaining ? unsafe firstHost + Int(truncatingIfNeeded: offset) : nil
  }

  /// The first region as a value of its own: a loop that writes to memory keeps it in registers.
  @inlinable
  @inline(__always)
  borrowing func first() -> FirstRegion {
    unsafe FirstRegion(address: firstAddress, length: firstLength, host: firstHost)
  }

  /// The same for a length of 64 bits, with the reason when it is refused.
  ///
  /// - Throws: why it is refused: no region has the whole range, or it may not be written.
  public borrowing func translate(
    _ address: UInt64, length: UInt64, forWriting: Bool
  ) throws(GuestMemoryError) -> UnsafeMutableRawPointer {
    if let pointer = unsafe otherPointer(to: address, length: length, forWriting: forWriting) { return unsafe pointer }
    if length > 0, address.addingReportingOverflow(length - 1).overflow {
      throw .overflow(address: address, length: length)
    }
    for index in 0..<regionCount {
      // Below the count.
      let region = unsafe regions[index]
      let offset = address &- region.address
      if offset < region.length {
        if length > region.length - offset { throw .spansRegions(address: address, length: length) }
        throw .readOnly(address: address)
      }
    }
    throw .unmapped(address: address)
  }

  /// Searches all regions.
  @usableFromInline
  @inline(never)
  borrowing func otherPointer(to address: UInt64, length: UInt64, forWriting: Bool) -> UnsafeMutableRawPointer? {
    for index in 0..<regionCount {
      // Below the count.
      let region = unsafe regions[index]
      let offset = address &- region.address
      if offset <= region.length, length <= region.length - offset, !forWriting || region.isWritable {
        return unsafe region.host + Int(truncatingIfNeeded: offset)
      }
    }
    return nil
  }
}

/// The largest region of a memory.
@frozen
@usableFromInline
@safe
struct FirstRegion {
  @usableFromInline let address: UInt64
  @usableFromInline let length: UInt64
  @usableFromInline let host: UnsafeMutableRawPointer

  @inlinable
  @inline(__always)
  init(address: UInt64, length: UInt64, host: UnsafeMutableRawPointer) {
    self.address = address
    self.length = length
    unsafe self.host = host
  }

  /// As `GuestMemory.firstPointer`, empty ranges included; found by its end, which takes fewer steps where the largest region is
  /// the one that counts.
  @inlinable
  @inline(__always)
  func place(of address: UInt64, length: UInt32) -> UnsafeMutableRawPointer? {
    let (lastOffset, isLonger) = self.length.subtractingReportingOverflow(UInt64(length))
    let offset = address &- self.address
    guard !isLonger, offset <= lastOffset else { return nil }
    return unsafe host + Int(truncatingIfNeeded: offset)
  }
}
