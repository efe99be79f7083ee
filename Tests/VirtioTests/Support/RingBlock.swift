import CNetdevSystem
import Virtio

/// Memory for one ring and its buffers, with the raw bytes within reach: what an honest or lying peer has in its hands.
///
/// Buffers lie at `bufferBase` of the peer's address space, one page, followed by the ring's own areas in private memory.
@safe
final class RingBlock: @unchecked Sendable {
  let layout: RingLayout
  let block: UnsafeMutableRawPointer
  let buffers: UnsafeMutableRawPointer
  static let bufferBase: UInt64 = 0x10_0000
  static let bufferBytes = 1 << 20

  init(size: Int) throws {
    layout = try RingLayout(.split, size: size)
    unsafe block = .allocate(byteCount: layout.totalBytes, alignment: 64)
    unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
    unsafe buffers = .allocate(byteCount: Self.bufferBytes, alignment: 4096)
    unsafe buffers.initializeMemory(as: UInt8.self, repeating: 0, count: Self.bufferBytes)
  }

  deinit {
    unsafe block.deallocate()
    unsafe buffers.deallocate()
  }

  func memory() throws -> GuestMemory {
    unsafe try GuestMemory([
      GuestRegion(address: Self.bufferBase, length: UInt64(Self.bufferBytes), host: buffers)
    ])
  }

  func driver(_ change: (inout SplitDriverRing.Configuration) -> Void = { _ in }) throws -> SplitDriverRing {
    var configuration = try unsafe SplitDriverRing.Configuration(size: Int(layout.size), block: block)
    change(&configuration)
    return try configuration.activate()
  }

  func device(_ change: (inout SplitDeviceRing.Configuration) -> Void = { _ in }) throws -> SplitDeviceRing {
    var configuration = try unsafe SplitDeviceRing.Configuration(size: Int(layout.size), block: block)
    change(&configuration)
    return try configuration.activate()
  }

  // MARK: The bytes of the ring, as the peer writes them

  private var avail: UnsafeMutableRawPointer { unsafe block + layout.driverOffset }
  private var used: UnsafeMutableRawPointer { unsafe block + layout.deviceOffset }
  private func slot(_ index: UInt16) -> Int { Int(index % layout.size) }

  var availFlags: UInt16 {
    get { unsafe netdev_load_acquire_u16(avail) }
    set { unsafe netdev_store_release_u16(avail, newValue) }
  }
  var availIdx: UInt16 {
    get { unsafe netdev_load_acquire_u16(avail + 2) }
    set { unsafe netdev_store_release_u16(avail + 2, newValue) }
  }
  var usedEvent: UInt16 {
    get { unsafe netdev_load_acquire_u16(avail + 4 + 2 * Int(layout.size)) }
    set { unsafe netdev_store_release_u16(avail + 4 + 2 * Int(layout.size), newValue) }
  }
  var usedFlags: UInt16 {
    get { unsafe netdev_load_acquire_u16(used) }
    set { unsafe netdev_store_release_u16(used, newValue) }
  }
  var usedIdx: UInt16 {
    get { unsafe netdev_load_acquire_u16(used + 2) }
    set { unsafe netdev_store_release_u16(used + 2, newValue) }
  }
  var availEvent: UInt16 {
    get { unsafe netdev_load_acquire_u16(used + 4 + 8 * Int(layout.size)) }
    set { unsafe netdev_store_release_u16(used + 4 + 8 * Int(layout.size), newValue) }
  }

  func availEntry(_ index: UInt16) -> UInt16 { unsafe netdev_load_relaxed_u16(avail + 4 + 2 * slot(index)) }
  func setAvail(_ index: UInt16, head: UInt16) { unsafe netdev_store_relaxed_u16(avail + 4 + 2 * slot(index), head) }

  func usedElement(_ index: UInt16) -> (id: UInt32, length: UInt32) {
    unsafe (netdev_load_relaxed_u32(used + 4 + 8 * slot(index)), netdev_load_relaxed_u32(used + 8 + 8 * slot(index)))
  }
  func setUsed(_ index: UInt16, id: UInt32, length: UInt32) {
    unsafe netdev_store_relaxed_u32(used + 4 + 8 * slot(index), id)
    unsafe netdev_store_relaxed_u32(used + 8 + 8 * slot(index), length)
  }

  func descriptor(_ id: UInt16) -> RawDescriptor { unsafe RawDescriptor(block + 16 * Int(id)) }
  func setDescriptor(_ id: UInt16, _ descriptor: RawDescriptor) { unsafe descriptor.store(block + 16 * Int(id)) }

  /// Writes a table of descriptors into the buffers, `offset` bytes from their start.
  func setTable(at offset: Int, _ descriptors: [RawDescriptor]) {
    for (index, descriptor) in descriptors.enumerated() { unsafe descriptor.store(buffers + offset + 16 * index) }
  }
}

/// A descriptor as it lies in memory.
struct RawDescriptor: Equatable {
  var address: UInt64
  var length: UInt32
  var flags: UInt16
  var next: UInt16

  static let next: UInt16 = 1
  static let write: UInt16 = 2
  static let indirect: UInt16 = 4

  init(_ address: UInt64, _ length: UInt32, _ flags: UInt16 = 0, next: UInt16 = 0) {
    self.address = address
    self.length = length
    self.flags = flags
    self.next = next
  }

  init(_ place: UnsafeMutableRawPointer) {
    address = unsafe netdev_load_relaxed_u64(place)
    let word = unsafe netdev_load_relaxed_u64(place + 8)
    length = UInt32(truncatingIfNeeded: word)
    flags = UInt16(truncatingIfNeeded: word >> 32)
    next = UInt16(truncatingIfNeeded: word >> 48)
  }

  func store(_ place: UnsafeMutableRawPointer) {
    unsafe netdev_store_relaxed_u64(place, address)
    unsafe netdev_store_relaxed_u64(place + 8, UInt64(length) | UInt64(flags) << 32 | UInt64(next) << 48)
  }
}
