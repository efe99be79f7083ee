/// One buffer for a ring, or one of several in a chain: an address as the device knows it, and a length in bytes.
@frozen
public struct RingBuffer: Hashable, Sendable {
  /// Address in the device's address space.
  public var address: UInt64
  /// Length in bytes.
  public var length: UInt32
  /// Whose buffer it is: given back unchanged when the device has used it. Only a chain's own token counts.
  public var token: UInt64

  /// A buffer of `length` bytes at `address`; `token` names a chain of this one buffer.
  @inlinable
  public init(address: UInt64, length: UInt32, token: UInt64 = 0) {
    self.address = address
    self.length = length
    self.token = token
  }
}

/// A chain that the device has used.
@frozen
public struct UsedBuffer: Hashable, Sendable {
  /// The token that the chain was added with.
  public var token: UInt64
  /// Bytes that the device wrote, never more than the writable bytes of the chain.
  public var written: UInt32

  /// The chain of `token`, with `written` bytes in it.
  @inlinable
  public init(token: UInt64, written: UInt32) {
    self.token = token
    self.written = written
  }
}

/// The buffers of a chain to add: what the device reads, then what it writes.
struct ChainBuffers: ~Escapable {
  private let readable: Span<RingBuffer>
  private let writable: Span<RingBuffer>
  /// Bytes that the device may write.
  let writableLength: UInt32

  /// Checks the lengths, for a ring of `size` descriptors.
  ///
  /// - Throws: `.chainEmpty`, `.chainTooLong` or `.chainTooLarge`.
  @_lifetime(copy readable, copy writable)
  init(_ readable: Span<RingBuffer>, _ writable: Span<RingBuffer>, size: Int) throws(RingError) {
    let total = readable.count + writable.count
    guard total > 0 else { throw RingError(.chainEmpty, 0) }
    guard total <= size else { throw RingError(.chainTooLong, UInt64(total)) }
    let writableBytes = Self.bytes(of: writable)
    // Span counts are below 2¹⁶ here, lengths below 2³²: the sum cannot overflow 64 bits.
    let bytes = Self.bytes(of: readable) + writableBytes
    guard bytes <= UInt64(UInt32.max) else { throw RingError(.chainTooLarge, bytes) }
    self.readable = readable
    self.writable = writable
    writableLength = UInt32(truncatingIfNeeded: writableBytes)
  }

  var count: Int { readable.count + writable.count }
  subscript(position: Int) -> RingBuffer {
    position < readable.count ? readable[position] : writable[position - readable.count]
  }
  /// Whether the device writes the buffer at `position`.
  func isWritable(_ position: Int) -> Bool { position >= readable.count }

  private static func bytes(of buffers: Span<RingBuffer>) -> UInt64 {
    var sum: UInt64 = 0
    for index in buffers.indices { sum += UInt64(buffers[index].length) }
    return sum
  }
}
