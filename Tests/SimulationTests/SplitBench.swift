import NetdevTesting
import Virtio

/// What the sides of a split ring do, of four descriptors unless it says otherwise.
@safe final class SplitBench: RingBench {
  let driver: LyingDriverRing
  private var usedPosition: UInt16

  init(size: Int = 4, startIndex: UInt16 = 0, _ configure: (inout MonitoredRing) -> Void = { _ in }) throws {
    let memory = try Memory(.split, size: size)
    driver = unsafe try LyingDriverRing(size: size, block: memory.block, startIndex: startIndex)
    usedPosition = startIndex
    try super.init(.split, size: size, memory) { ring in
      ring.startIndex = startIndex
      configure(&ring)
    }
  }

  func write(
    _ index: Int, length: UInt32, flags: UInt16 = LyingDriverRing.Descriptor.isWritable, next: UInt16 = 0,
    at address: UInt64 = SplitBench.base
  ) {
    driver.write(.init(address: address, length: length, flags: flags, next: next), at: index)
  }

  /// A buffer of 64 bytes in the first descriptor.
  func offerOne() {
    write(0, length: 64)
    offer(0)
  }

  func offer(_ heads: UInt16...) {
    for head in heads { driver.offer(head) }
    driver.publish()
  }

  /// Puts a descriptor where buffers point to.
  func store(_ descriptor: LyingDriverRing.Descriptor, entry: Int = 0) {
    unsafe LyingDriverRing.write(descriptor, to: frames + 16 * entry)
  }

  private var used: UnsafeMutableRawPointer { unsafe block + layout.deviceOffset }

  var usedIndex: UInt16 {
    get { unsafe (used + 2).load(as: UInt16.self) }
    set { unsafe (used + 2).storeBytes(of: newValue, as: UInt16.self) }
  }

  /// Uses a chain, or with IN_ORDER so many of which this is the last.
  func use(_ id: UInt32, length: UInt32, standingFor count: UInt16 = 1) {
    let place = unsafe used + 4 + 8 * (Int(usedPosition) & (size - 1))
    unsafe place.storeBytes(of: id, as: UInt32.self)
    unsafe (place + 4).storeBytes(of: length, as: UInt32.self)
    usedPosition &+= count
    usedIndex = usedPosition
  }

  func setUsedFlags(_ flags: UInt16) { unsafe used.storeBytes(of: flags, as: UInt16.self) }
  func setAvailEvent(_ event: UInt16) { unsafe (used + 4 + 8 * size).storeBytes(of: event, as: UInt16.self) }
}
