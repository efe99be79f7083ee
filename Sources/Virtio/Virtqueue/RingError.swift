/// What a ring found wrong, and the value that was offered.
///
/// Rules that name the peer are violations: the ring that reports one has stopped, unless its documentation says otherwise.
/// Rules that name the caller leave the ring as it was. A `RingError` is plain data: throwing one allocates nothing.
@frozen
public struct RingError: Error, Hashable, Sendable {
  /// The rule that was broken.
  @frozen
  public enum Rule: UInt8, Sendable, CaseIterable {
    // Configuration, before a ring exists.

    /// The size of a ring is from 1 to 32768, of a split one a power of two (VIRTIO 1.4 §2.7, §2.8.10.1). Value: the size.
    case size
    /// The place that a packed ring starts at is below its size. Value: the index, with the wrap counter in bit 15.
    case startIndex
    /// The descriptors are aligned to 16 bytes (§2.7, §2.8.10.1). Value: the address.
    case descriptorAlignment
    /// The driver area is aligned to 2 bytes, of a packed ring to 4 (§2.7, §2.8.10.1). Value: the address.
    case driverAlignment
    /// The device area is aligned to 4 bytes (§2.7, §2.8.10.1). Value: the address.
    case deviceAlignment
    /// The three areas of a ring do not overlap, nor run past the end of memory. Value: the address of the second one.
    case areaOverlap
    /// An area of the ring lies in one region that may be accessed as the ring needs. Value: the address.
    case areaUnmapped
    /// An indirect table is aligned to 16 bytes and holds at least two descriptors. Value: the address or the capacity.
    case indirectMemory

    // The driver's caller.

    /// A chain has at least one buffer. Value: 0.
    case chainEmpty
    /// A chain has at most as many descriptors as the ring (§2.7.5.3.1). Value: the number of buffers.
    case chainTooLong
    /// A chain is shorter than 2³² bytes: its length is kept in 32 bits (§2.7.5.2 allows one more). Value: its length.
    case chainTooLarge
    /// A ring is laid anew only when no buffer is outstanding. Value: the number of outstanding chains.
    case outstanding
    /// The ring has been drained and not reset. Value: 0.
    case drained

    // The device, as the driver sees it.

    /// `used.idx` advances by no more than what is in flight. Value: the index.
    case usedIndexJump
    /// A used id is below the size of the ring. Value: the id.
    case usedIdOutOfRange
    /// A used id is the head of an outstanding chain: not free, not used twice, not in the middle. Value: the id.
    case usedIdNotOutstanding
    /// A used length is no more than the writable bytes of its chain. Value: the length.
    case usedLengthTooLong
    /// With IN_ORDER a used id ends a batch that fits the advance of `used.idx` (§2.7.9). Value: the id.
    case usedOutOfOrder

    // The driver, as the device sees it.

    /// No more is available than the ring has descriptors: `avail.idx` advances by no more than its size. Value: the index.
    case availIndexJump
    /// An available head is below the size of the ring. Value: the head.
    case headOutOfRange
    /// `next` is below the size of its table. Value: `next`.
    case nextOutOfRange
    /// A chain has no more descriptors than the ring: a loop has more. Value: the size of the ring.
    case chainLoop
    /// A chain is no longer than 2³² bytes (§2.7.5.2). Value: its length.
    case chainOverlong
    /// Readable buffers come before writable ones (§2.7.4.2). Value: the position of the readable one.
    case readableAfterWritable
    /// An indirect table was offered although INDIRECT_DESC was not negotiated (§2.7.5.3.1). Value: the flags.
    case indirectNotNegotiated
    /// INDIRECT and NEXT exclude one another (§2.7.5.3.1); in a packed ring so do direct and indirect descriptors of one chain
    /// (§2.8.7). Value: the flags.
    case indirectWithNext
    /// An indirect table has no table inside (§2.7.5.3.1). Value: the flags.
    case indirectNested
    /// The length of an indirect table is a multiple of 16, not zero, and no more than the ring holds. Value: the length.
    case indirectLength
    /// An indirect table is aligned as a descriptor's fields are, to 8 bytes. Value: the address.
    case indirectAlignment
    /// A buffer lies in one region of guest memory, writable when the device writes. Value: the address.
    case bufferUnmapped

    // The device's caller.

    /// What is put back is the chain that was taken last, and neither returned nor put back. Value: its id.
    case putBack
    /// The owner of the ring stopped it. Value: given by the owner.
    case stopped
  }

  /// The rule that was broken.
  public let rule: Rule
  /// What was offered; the rule says what it is.
  public let value: UInt64

  /// An error of `rule` about `value`.
  @inlinable
  public init(_ rule: Rule, _ value: UInt64) {
    self.rule = rule
    self.value = value
  }
}

extension RingError: CustomStringConvertible {
  /// The rule and the value, for logs.
  public var description: String { "\(rule) (\(value))" }
}
