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
  /// The id to return the chain by.
  public let head: UInt16
  /// How many segments the device reads; they come first.
  public let readableCount: UInt16
  /// How many segments the device writes.
  public let writableCount: UInt16
  /// All segments, the readable ones first.
  public let segments: UnsafeMutablePointer<BufferSegment>

  @inlinable
  @inline(__always)
  init(head: UInt16, readableCount: UInt16, writableCount: UInt16, segments: UnsafeMutablePointer<BufferSegment>) {
    self.head = head
    self.readableCount = readableCount
    self.writableCount = writableCount
    unsafe self.segments = segments
  }

  /// What the device reads.
  @inlinable
  @inline(__always)
  public var readable: UnsafeBufferPointer<BufferSegment> {
    // The counts were taken when the segments were stored.
    unsafe UnsafeBufferPointer(start: segments, count: Int(readableCount))
  }

  /// What the device writes.
  @inlinable
  @inline(__always)
  public var writable: UnsafeBufferPointer<BufferSegment> {
    unsafe UnsafeBufferPointer(start: segments + Int(readableCount), count: Int(writableCount))
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
    for index in 0..<Int(readableCount) {
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
    for index in 0..<Int(writableCount) {
      let segment = unsafe segments[Int(readableCount) + index]
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
