internal import Virtio

/// The virtio-net headers between a port of a TAP or TUN interface and the kernel, in private memory: what is written in front of
/// each frame, and what is read there.
///
/// Their length belongs to the interface, and another program that holds one of its queues can change it. Then frames begin
/// elsewhere, and what is read as a header, or as a frame, is none: `isPlain` finds a header that has become shorter, or is not
/// there at all.
@safe struct TapHeaders: ~Copyable {
  /// Asks for nothing: for the kernel to read.
  let plain: UnsafeMutableRawPointer
  /// For the kernel to write to.
  let received: UnsafeMutableRawPointer
  /// A byte that shows that a frame was longer than its room.
  let excess: UnsafeMutableRawPointer

  /// The kernel writes ten of the twelve bytes of its header. The others it skips, or fills with zeros (since Linux 6.15);
  /// anything else there means that headers have become shorter, and that a frame begins where they were.
  private static let mark: UInt16 = 0xA55A
  private static let markOffset = 10

  init() {
    unsafe plain = .allocate(byteCount: 64, alignment: 16)
    unsafe plain.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
    unsafe received = plain + 16
    unsafe excess = plain + 32
    mark()
  }

  deinit { unsafe plain.deallocate() }

  /// Before the first frame, and after one that came without a whole header.
  func mark() { unsafe received.storeBytes(of: Self.mark, toByteOffset: Self.markOffset, as: UInt16.self) }

  /// Whether the header is where it was agreed that it is.
  var isMarked: Bool {
    let found = unsafe received.load(fromByteOffset: Self.markOffset, as: UInt16.self)
    return found == 0 || found == Self.mark
  }

  /// Whether the last frame came with a header of the agreed length that asks for no offload: flags and kind of segmentation
  /// are the first two bytes (VIRTIO 1.4 §5.1.9); that a checksum was found right (flag 2) asks for nothing.
  @inline(__always) var isPlain: Bool {
    let word = unsafe UInt16(littleEndian: received.load(as: UInt16.self))
    return word & 0xFF01 == 0 && isMarked
  }
}
