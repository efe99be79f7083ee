public import Netdev

/// Memory that a driver shares with its device: a pool's, or rings.
@safe public struct VirtioMemory: @unchecked Sendable {
  // Proof of Sendable: an address and what keeps it mapped; what lies there is used by both sides under the rings' rules.

  /// First byte here, aligned to a page.
  public let pointer: UnsafeMutableRawPointer
  /// Length in bytes.
  public let length: Int
  /// The file behind it, from the file's first byte on, for a device that maps it itself; nil for memory of this process alone.
  public let descriptor: CInt?
  /// Keeps the memory mapped and its descriptor open. The same owner is the same memory.
  public let owner: any AnyObject & Sendable

  /// A piece of memory that `owner` keeps mapped.
  @unsafe public init(
    pointer: UnsafeMutableRawPointer, length: Int, descriptor: CInt? = nil, owner: any AnyObject & Sendable
  ) {
    unsafe self.pointer = pointer
    self.length = length
    self.descriptor = descriptor
    self.owner = owner
  }

  /// A pool's memory.
  public init(_ pool: PacketPool) {
    self = unsafe pool.withMemory { base, length in
      unsafe VirtioMemory(pointer: base, length: length, descriptor: pool.descriptor, owner: pool)
    }
  }
}
