internal import Netdev
internal import Synchronization
internal import Virtio

/// A piece of zeroed memory for rings, aligned to a page.
@safe final class RingMemory: Sendable {
  // Proof: an address; what lies there is used by the ring's two sides under the ring's rules.
  nonisolated(unsafe) let pointer: UnsafeMutableRawPointer
  let length: Int
  private let place = Atomic<UInt64>(0)

  init(bytes: Int) {
    length = (max(bytes, 1) + 4095) & ~4095
    unsafe pointer = .allocate(byteCount: length, alignment: 4096)
    unsafe pointer.initializeMemory(as: UInt8.self, repeating: 0, count: length)
  }

  // A device that did not confirm its reset may still write here: `Quarantine` then keeps it.
  deinit { unsafe pointer.deallocate() }

  /// Where the device finds it.
  var address: UInt64 {
    get { place.load(ordering: .acquiring) }
    set { place.store(newValue, ordering: .releasing) }
  }
}

/// What a pair's engine may touch: the pools and the ring memory that existed when the pair was made.
struct PairMemory: Sendable {
  let pools: [PacketPool]
  let rings: [RingMemory]
  let poolSpacing: UInt64

  /// The map, pools first: most look-ups are for frames.
  func map() throws(GuestMemoryError) -> GuestMemory {
    var regions: [GuestRegion] = []
    for (position, pool) in pools.enumerated() {
      regions.append(
        unsafe pool.withMemory { base, length in
          unsafe GuestRegion(address: UInt64(position + 1) * poolSpacing, length: UInt64(length), host: base)
        })
    }
    for memory in rings {
      regions.append(
        unsafe GuestRegion(address: memory.address, length: UInt64(memory.length), host: memory.pointer))
    }
    return try GuestMemory(regions)
  }
}
