internal import Netdev
internal import Virtio

/// Where buffers of the pool lie in the device's address space.
@safe struct PoolAddressing {
  /// From an address here to the device's: the pool is one region for both.
  private let distance: UInt64
  private let emptyOffset: Int
  private let emptyLength: UInt32

  init(base: UInt64, slots: SlotTable) {
    distance = base &- UInt64(UInt(bitPattern: unsafe slots.base(of: 0)))
    // The header goes before the place where the frame shall begin.
    emptyOffset = slots.headroom - VirtioNetHeader.size
    emptyLength = UInt32(slots.slotSize - slots.headroom + VirtioNetHeader.size)
  }

  /// The device's address of a place in the pool.
  @inline(__always) func address(of place: UnsafeMutableRawPointer) -> UInt64 {
    UInt64(UInt(bitPattern: place)) &+ distance
  }

  /// A buffer to receive into: `base` is the first byte of `slot`.
  @inline(__always) func emptyBuffer(_ slot: UInt32, base: UnsafeMutableRawPointer) -> RingBuffer {
    unsafe RingBuffer(address: address(of: base + emptyOffset), length: emptyLength, token: UInt64(slot))
  }
}

/// Where a pair's parts lie in its piece of the ring memory: both rings, indirect tables, the header of zeros.
struct PairMemoryMap {
  let layout: SplitRingLayout
  let indirectCapacity: Int

  init(layout: SplitRingLayout, indirect: Bool) {
    self.layout = layout
    indirectCapacity = indirect ? min(8, Int(layout.size)) : 0
  }

  /// From the receive ring to the transmit ring: whole cache lines.
  var ringStride: Int { (layout.totalBytes + 63) & ~63 }
  var indirectOffset: Int { 2 * ringStride }
  var headerOffset: Int { indirectOffset + 16 * indirectCapacity * Int(layout.size) }
  /// Whole pages: no two pairs share one.
  var totalBytes: Int { (headerOffset + 64 + 4095) & ~4095 }
}
