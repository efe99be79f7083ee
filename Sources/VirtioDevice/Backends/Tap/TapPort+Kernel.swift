internal import CNetdevSystem
internal import Glibc
internal import Virtio

// What the kernel is shown of the driver's buffers, and what it says in front of a frame.
extension TapPort {
  // MARK: The header in front of received frames

  /// Where the kernel puts it.
  private static let headerOffset = 16
  /// The kernel writes ten of the twelve bytes of its header. The others it skips, or fills with zeros (since Linux 6.15);
  /// anything else there means that headers have become shorter, and that a frame begins where they were.
  private static let mark: UInt16 = 0xA55A

  func markHeader() {
    unsafe scratch.storeBytes(of: Self.mark, toByteOffset: Self.headerOffset + 10, as: UInt16.self)
  }

  /// Whether the header is where it was agreed that it is.
  var isHeaderMarked: Bool {
    let found = unsafe scratch.load(fromByteOffset: Self.headerOffset + 10, as: UInt16.self)
    return found == 0 || found == Self.mark
  }

  /// Whether the last frame came with a header of the agreed length that asks for no offload: flags and kind of segmentation
  /// are the first two bytes (VIRTIO 1.4 §5.1.9); that a checksum was found right (flag 2) asks for nothing.
  @inline(__always) var isHeaderPlain: Bool {
    let word = unsafe UInt16(littleEndian: scratch.load(fromByteOffset: Self.headerOffset, as: UInt16.self))
    return word & 0xFF01 == 0 && isHeaderMarked
  }

  // MARK: Buffers

  /// Writes the frame of a chain behind a plain header. Zero, or the error.
  func write(_ chain: DescriptorChain) -> CInt {
    unsafe vector[0] = iovec(iov_base: scratch, iov_len: VirtioNetHeader.size)
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
    unsafe vector[0] = iovec(iov_base: scratch + Self.headerOffset, iov_len: VirtioNetHeader.size)
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
    unsafe vector[places] = iovec(iov_base: scratch + 32, iov_len: 1)
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
