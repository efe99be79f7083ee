internal import CNetdevSystem
internal import Glibc
internal import Virtio

// What the kernel is shown of the driver's buffers, and what it says in front of a frame.
extension TapPort {
  // MARK: Buffers

  /// Writes the frame of a chain behind a plain header. Zero, or the error.
  func write(_ chain: DescriptorChain) -> CInt {
    unsafe vector[0] = iovec(iov_base: headers.plain, iov_len: VirtioNetHeader.size)
    var skip = VirtioNetHeader.size
    var places = 1
    for index in 0..<chain.readableCount {
      let segment = unsafe chain.segments[index]
      let skipped = min(skip, segment.length)
      skip -= skipped
      guard segment.length > skipped else { continue }
      // Fewer segments than places: the caller has counted.
      unsafe vector[places] = iovec(iov_base: segment.base + skipped, iov_len: segment.length - skipped)
      places += 1
    }
    return unsafe -netdev_tap_write(served.queue.descriptor, vector, CInt(places))
  }

  /// Lays out the private header, the buffers in hand behind their own header, and the byte that tells a frame too long.
  func fillVector<Ring: DeviceRing & ~Copyable>(from rings: inout EngineRings<Ring>) -> (places: Int, room: Int) {
    unsafe vector[0] = iovec(iov_base: headers.received, iov_len: VirtioNetHeader.size)
    var places = 1
    var room = VirtioNetHeader.size
    var skip = VirtioNetHeader.size
    rings.forEachSegmentInHand { segment in
      guard places < Self.vectorCapacity - 1 else { return }
      let skipped = min(skip, segment.length)
      skip -= skipped
      guard segment.length > skipped else { return }
      unsafe vector[places] = iovec(iov_base: segment.base + skipped, iov_len: segment.length - skipped)
      room += segment.length - skipped
      places += 1
    }
    unsafe vector[places] = iovec(iov_base: headers.excess, iov_len: 1)
    return (places + 1, room)
  }

  // MARK: Observation

  func report(_ chain: DescriptorChain, length: Int, to observer: any FrameObserver) {
    unsafe report(.transmitted, length, to: observer) { unsafe chain.copyBytes(from: VirtioNetHeader.size, into: $0) }
  }

  func report<Ring: DeviceRing & ~Copyable>(
    _ rings: inout EngineRings<Ring>, length: Int, to observer: any FrameObserver
  ) {
    unsafe report(.received, length, to: observer) { unsafe rings.copyFromHand(at: VirtioNetHeader.size, into: $0) }
  }

  /// Shows the observer a private copy of the frame's first bytes, which `copy` makes.
  private func report(
    _ direction: FrameDirection, _ length: Int, to observer: any FrameObserver,
    _ copy: (UnsafeMutableRawBufferPointer) -> Int
  ) {
    var prefix = InlineArray<64, UInt8>(repeating: 0)
    var span = prefix.mutableSpan
    let count = unsafe span.withUnsafeMutableBytes { unsafe copy($0) }
    // Bytes: any value is a valid one.
    let bytes = unsafe span.bytes.extracting(0..<min(count, length))
    observer.observe(queue: number, direction: direction, length: length, prefix: bytes)
  }
}
