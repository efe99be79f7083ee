internal import CNetdevSystem

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

  /// Throws `.indirectMemory` unless they are tables.
  func check() throws(RingError) {
    guard capacity >= 2, capacity <= RingLayout.maximumSize else {
      throw RingError(.indirectMemory, UInt64(truncatingIfNeeded: capacity))
    }
    guard unsafe UInt(bitPattern: host) % 16 == 0, address % 16 == 0 else {
      throw RingError(.indirectMemory, address)
    }
  }

  /// Whether a chain of so many buffers goes into a table of a ring of `size`.
  ///
  /// Tables stay below the ring's size: DPDK's packed ring refuses longer ones, and one rule for both formats is simpler.
  func fit(_ count: Int, size: Int) -> Bool { count > 1 && count <= capacity && count < size }

  /// Writes a chain into the table that belongs to `id`, which is below the size, from its start on, as IN_ORDER asks too;
  /// linked in a split ring, in the order of the table in a packed one, which ignores NEXT there (VIRTIO 1.4 §2.8.7).
  ///
  /// - Returns: the table's address, for the device.
  func write(_ chain: borrowing ChainBuffers, to id: UInt16, format: RingFormat) -> UInt64 {
    let offset = 16 * capacity * Int(id)
    for position in 0..<chain.count {
      // The table has room: `fit` compared with the capacity.
      let place = unsafe host + offset + 16 * position
      let buffer = chain[position]
      let write: UInt16 = chain.isWritable(position) ? DescriptorFlag.write : 0
      unsafe netdev_store_relaxed_u64(place, buffer.address)
      let word: UInt64
      switch format {
      case .split:
        let isLast = position == chain.count - 1
        word = DescriptorFlag.word(
          length: buffer.length, flags: write | (isLast ? 0 : DescriptorFlag.next),
          next: isLast ? 0 : UInt16(truncatingIfNeeded: position + 1))
      case .packed:
        word = DescriptorFlag.word(length: buffer.length, id: 0, flags: write)
      }
      unsafe netdev_store_relaxed_u64(place + 8, word)
    }
    return address &+ UInt64(offset)
  }
}
