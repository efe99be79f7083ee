/// One buffer of a chain, translated and checked: memory of the driver that the device may touch.
///
/// Its layout is that of `struct iovec`, so that `readv` and `writev` take a chain as it stands.
@frozen
@safe
public struct BufferSegment {
  /// The first byte. A readable segment may be mapped read-only: it is never written.
  public let base: UnsafeMutableRawPointer
  /// Length in bytes.
  public let length: Int

  /// `length` bytes at `base`.
  @inlinable
  @inline(__always)
  public init(base: UnsafeMutableRawPointer, length: Int) {
    unsafe self.base = base
    self.length = length
  }
}

/// A chain of buffers that the driver has made available: what the device reads, then what it writes.
///
/// The segments live in the ring's own storage, out of the driver's reach, until the ring begins another batch. The bytes
/// they lead to stay the driver's to change at any time: what decides anything is copied first, then checked.
@frozen
@safe
public struct DescriptorChain {
  /// Id in bits 0 to 15, readable and writable counts and places in the next sixteens: one store for the four.
  @usableFromInline let word: UInt64
  /// All segments, the readable ones first.
  public let segments: UnsafeMutablePointer<BufferSegment>

  @inlinable
  @inline(__always)
  init(
    head: UInt16, readableCount: UInt16, writableCount: UInt16, places: UInt16,
    segments: UnsafeMutablePointer<BufferSegment>
  ) {
    word = UInt64(head) | UInt64(readableCount) << 16 | UInt64(writableCount) << 32 | UInt64(places) << 48
    unsafe self.segments = segments
  }

  /// A chain of one segment.
  @inlinable
  @inline(__always)
  init(singleHead head: UInt16, isWritable: Bool, segment: UnsafeMutablePointer<BufferSegment>) {
    word = UInt64(head) | (isWritable ? 1 << 48 | 1 << 32 : 1 << 48 | 1 << 16)
    unsafe segments = segment
  }

  /// The id to return the chain by: in a split ring that of its first descriptor.
  @inlinable
  @inline(__always)
  public var head: UInt16 { UInt16(truncatingIfNeeded: word) }

  /// How many segments the device reads; they come first.
  @inlinable
  @inline(__always)
  public var readableCount: Int { Int(truncatingIfNeeded: word &>> 16 & 0xffff) }

  /// How many segments the device writes.
  @inlinable
  @inline(__always)
  public var writableCount: Int { Int(truncatingIfNeeded: word &>> 32 & 0xffff) }

  /// How many places it has where the driver makes chains available: 1 in a split ring, its descriptors in a packed one.
  @inlinable
  @inline(__always)
  var places: UInt32 { UInt32(truncatingIfNeeded: word &>> 48) }

  /// What the device reads.
  @inlinable
  @inline(__always)
  public var readable: UnsafeBufferPointer<BufferSegment> {
    // The counts were taken when the segments were stored.
    unsafe UnsafeBufferPointer(start: segments, count: readableCount)
  }

  /// What the device writes.
  @inlinable
  @inline(__always)
  public var writable: UnsafeBufferPointer<BufferSegment> {
    unsafe UnsafeBufferPointer(start: segments + readableCount, count: writableCount)
  }

  /// Bytes that the device may read: below 2³² + 1.
  @inlinable public var readableLength: Int { unsafe Self.length(of: readable) }

  /// Bytes that the device may write.
  @inlinable public var writableLength: Int { unsafe Self.length(of: writable) }

  @inlinable
  static func length(of segments: UnsafeBufferPointer<BufferSegment>) -> Int {
    if segments.count == 1 { return unsafe segments[0].length }
    var sum = 0
    // At most 32768 lengths below 2³²: no overflow.
    for index in 0..<segments.count { unsafe sum &+= segments[index].length }
    return sum
  }

  /// Copies readable bytes from `offset` on into `destination`, and says how many there were.
  ///
  /// The net header is read so: it may be spread over any number of segments (VIRTIO 1.4 §5.1.9.2.2).
  @inlinable
  public func copyBytes(from offset: Int, into destination: UnsafeMutableRawBufferPointer) -> Int {
    var skip = offset
    var done = 0
    for index in 0..<readableCount {
      let segment = unsafe segments[index]
      if skip >= segment.length {
        skip -= segment.length
        continue
      }
      let part = min(segment.length - skip, destination.count - done)
      if part <= 0 { break }
      // Both ends were bounded in the line above.
      unsafe (destination.baseAddress.unsafelyUnwrapped + done).copyMemory(from: segment.base + skip, byteCount: part)
      skip = 0
      done += part
    }
    return done
  }

  /// Copies `source` into the writable bytes from `offset` on, and says how many bytes had room.
  @inlinable
  public func write(_ source: UnsafeRawBufferPointer, at offset: Int) -> Int {
    var skip = offset
    var done = 0
    for index in 0..<writableCount {
      let segment = unsafe segments[readableCount + index]
      if skip >= segment.length {
        skip -= segment.length
        continue
      }
      let part = min(segment.length - skip, source.count - done)
      if part <= 0 { break }
      unsafe (segment.base + skip).copyMemory(from: source.baseAddress.unsafelyUnwrapped + done, byteCount: part)
      skip = 0
      done += part
    }
    return done
  }
}
