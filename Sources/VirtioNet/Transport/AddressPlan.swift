package import Netdev
package import Virtio

/// By which addresses a device knows what is shared with it, where nothing else decides that: they say nothing about this process,
/// and the same memory in the same order has the same ones.
package struct AddressPlan: Sendable {
  /// A piece of memory, and where the device finds its first byte.
  package struct Piece: Sendable {
    package let address: UInt64
    package let memory: VirtioMemory

    /// Memory that the device finds there.
    package init(address: UInt64, memory: VirtioMemory) {
      self.address = address
      self.memory = memory
    }
  }

  /// From one piece to the next, and to the first: none is longer.
  package static let spacing: UInt64 = 1 << 40

  /// In the order in which they were shared.
  package private(set) var pieces: [Piece] = []

  /// Nothing is shared.
  package init() {}

  /// Shares a piece; one that is shared already keeps its address.
  ///
  /// - Throws: `outOfMemory` when the device can be shown no more.
  package mutating func share(_ memory: VirtioMemory) throws(NetworkDeviceError) -> UInt64 {
    if let piece = pieces.first(where: { $0.memory.owner === memory.owner }) { return piece.address }
    guard pieces.count < GuestMemory.maximumRegions, UInt64(memory.length) <= Self.spacing else {
      throw NetworkDeviceError(
        .outOfMemory, "sharing memory with a device",
        offered: "\(memory.length) bytes after \(pieces.count) other pieces",
        advice: "use smaller queues, or a smaller pool")
    }
    let address = UInt64(pieces.count + 1) * Self.spacing
    pieces.append(Piece(address: address, memory: memory))
    return address
  }

  /// What is shared, as a device of this process looks at it.
  package func guestMemory() throws(GuestMemoryError) -> GuestMemory {
    try GuestMemory(
      pieces.map { piece in
        unsafe GuestRegion(
          address: piece.address, length: UInt64(piece.memory.length), host: piece.memory.pointer)
      })
  }
}
