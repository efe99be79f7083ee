internal import Netdev
internal import Virtio

/// Where buffers of the pool lie in the device's address space.
@safe struct PoolAddressing {
  /// From an address here to the device's: the pool is one region for both.
  private let distance: UInt64
  /// From the first byte of a frame to the device's address of the header before it.
  private let headerDistance: UInt64
  /// From the first byte of a slot to the device's address of the header of what is received in it.
  private let emptyDistance: UInt64
  private let emptyLength: UInt32

  init(base: UInt64, slots: SlotTable) {
    distance = base &- UInt64(UInt(bitPattern: unsafe slots.base(of: 0)))
    headerDistance = distance &- UInt64(VirtioNetHeader.size)
    // The header goes before the place where the frame shall begin.
    emptyDistance = distance &+ UInt64(slots.headroom - VirtioNetHeader.size)
    emptyLength = UInt32(slots.slotSize - slots.headroom + VirtioNetHeader.size)
  }

  /// The device's address of a place in the pool.
  @inline(__always) func address(of place: UnsafeMutableRawPointer) -> UInt64 {
    UInt64(UInt(bitPattern: place)) &+ distance
  }

  /// The device's address of the header that goes right before a frame in the pool.
  @inline(__always) func headerAddress(before frame: UnsafeMutableRawPointer) -> UInt64 {
    UInt64(UInt(bitPattern: frame)) &+ headerDistance
  }

  /// A buffer to receive into: `base` is the first byte of `slot`.
  @inline(__always) func emptyBuffer(_ slot: UInt32, base: UnsafeMutableRawPointer) -> RingBuffer {
    RingBuffer(address: UInt64(UInt(bitPattern: base)) &+ emptyDistance, length: emptyLength, token: UInt64(slot))
  }
}
