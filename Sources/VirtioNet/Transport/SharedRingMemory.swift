/// Memory for rings, as the driver writes it and as the device finds it.
@safe public struct SharedRingMemory: @unchecked Sendable {
  // Proof of Sendable: an address and what keeps it mapped; what lies there is used by the ring's two sides under the ring's
  // rules.

  /// First byte here, aligned to a page.
  public let pointer: UnsafeMutableRawPointer
  /// The same byte's address for the device.
  public let address: UInt64
  /// Length in bytes.
  public let length: Int
  /// Keeps the memory mapped here; nil where whoever made it does.
  public let owner: (any AnyObject & Sendable)?

  /// A piece of memory. While the device may use it, whoever makes it keeps it mapped for the device; `owner`, if there is
  /// one, keeps it mapped here for as long as the driver holds this value.
  @unsafe public init(
    pointer: UnsafeMutableRawPointer, address: UInt64, length: Int, owner: (any AnyObject & Sendable)? = nil
  ) {
    unsafe self.pointer = pointer
    self.address = address
    self.length = length
    self.owner = owner
  }

  /// The piece of `bytes` bytes at place `index`, which lies inside.
  func piece(_ index: Int, of bytes: Int) -> SharedRingMemory {
    unsafe SharedRingMemory(
      pointer: pointer.advanced(by: index * bytes), address: address &+ UInt64(index * bytes), length: bytes,
      owner: owner)
  }
}
