#if Testing
internal import Netdev
internal import Virtio

// Only in builds for tests: simulated worlds watch the pair's rings.
extension VirtioQueuePair where Ring: ~Copyable {
  /// The rings in this memory are laid, and empty.
  func tellLaid(_ memory: SharedRings) {
    let map = agreed.memoryMap
    let place = unsafe placing(memory)
    for (name, offset, isReceive) in [("receive", 0, true), ("transmit", map.ringStride, false)] {
      RingWatch.tell(
        .laid(
          unsafe WatchedRing(
            name: "\(name) ring of pair \(index)", layout: map.layout, block: memory.pointer + offset,
            features: features, isReceive: isReceive, place: place)))
    }
  }

  /// The driver is about to publish on the receive ring, or has.
  func tellPosted() { RingWatch.tell(.offered(unsafe rings.pointee.receive.identity)) }

  /// The driver is about to publish on the transmit ring, or has.
  func tellTransmitted() { RingWatch.tell(.offered(unsafe rings.pointee.transmit.identity)) }

  /// Nobody keeps the rules of these rings any more.
  func tellGone() {
    RingWatch.tell(.gone(unsafe rings.pointee.receive.identity))
    RingWatch.tell(.gone(unsafe rings.pointee.transmit.identity))
  }

  /// From the device's addresses to ours: the ring memory and the pool's buffers.
  private func placing(_ memory: SharedRings) -> @Sendable (UInt64, Int) -> UnsafeRawPointer? {
    let pool = unsafe UInt(bitPattern: slots.base(of: 0))
    let pieces = unsafe [
      (memory.address, UInt64(memory.length), UInt(bitPattern: memory.pointer)),
      (addressing.address(of: slots.base(of: 0)), UInt64(slots.count * slots.slotSize), pool),
    ]
    return { address, length in
      for (start, bytes, host) in pieces {
        let offset = address &- start
        if offset < bytes, UInt64(length) <= bytes - offset {
          return unsafe UnsafeRawPointer(bitPattern: host &+ UInt(offset))
        }
      }
      return nil
    }
  }
}
#endif
