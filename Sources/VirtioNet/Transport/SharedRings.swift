/// Memory for rings that the device has been shown, or a piece of it.
@safe struct SharedRings: @unchecked Sendable {
  // Proof of Sendable: an address and what keeps it mapped; what lies there is used by the ring's two sides under the ring's
  // rules.

  /// First byte here, aligned to a page.
  let pointer: UnsafeMutableRawPointer
  /// The same byte's address for the device.
  let address: UInt64
  /// Length in bytes.
  let length: Int
  private let owner: any AnyObject & Sendable

  /// All of a memory that the device knows by `address`.
  init(_ memory: VirtioMemory, at address: UInt64) {
    unsafe pointer = memory.pointer
    self.address = address
    length = memory.length
    owner = memory.owner
  }

  private init(_ whole: SharedRings, offset: Int, length: Int) {
    unsafe pointer = whole.pointer.advanced(by: offset)
    address = whole.address &+ UInt64(offset)
    self.length = length
    owner = whole.owner
  }

  /// The piece of `bytes` bytes from `offset` on, which lies inside.
  func piece(at offset: Int, bytes: Int) -> SharedRings { SharedRings(self, offset: offset, length: bytes) }

  /// The piece of `bytes` bytes at place `index`, which lies inside.
  func piece(_ index: Int, of bytes: Int) -> SharedRings { SharedRings(self, offset: index * bytes, length: bytes) }
}
