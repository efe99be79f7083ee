internal import CNetdevSystem
public import Virtio
internal import VirtioNet

/// The memory that a driver has shown to a `LyingDevice`: its pools and rings, by the addresses that the device was given.
@safe final class LyingMemory: Sendable {
  private let pieces: [AddressPlan.Piece]

  init(_ pieces: [AddressPlan.Piece]) { self.pieces = pieces }

  /// Where `length` bytes at `address` lie here; nil unless the driver has shown all of them.
  func pointer(_ address: UInt64, _ length: Int) -> UnsafeMutableRawPointer? {
    for piece in pieces where address >= piece.address && length >= 0 {
      let offset = address - piece.address
      if offset <= UInt64(piece.memory.length), UInt64(length) <= UInt64(piece.memory.length) - offset {
        return unsafe piece.memory.pointer.advanced(by: Int(offset))
      }
    }
    return nil
  }
}

/// A ring in shared memory as a device finds it, raw: whatever the driver wrote can be read, anything can be written.
///
/// Each access is one atomic load or store of a field. It may be used on any thread: a device is another processor, and
/// scribbling into a ring while the driver works on it is what it is for.
@safe public struct LyingRing: @unchecked Sendable {
  // Proof of Sendable: constants; every access to what they point to is an atomic one of a single field.
  let descriptors: UnsafeMutableRawPointer
  /// The driver area: the available ring, or event suppression of a packed ring.
  let available: UnsafeMutableRawPointer
  /// The device area.
  let used: UnsafeMutableRawPointer
  let memory: LyingMemory
  /// Split or packed.
  public let format: RingFormat
  /// Number of descriptors.
  public let size: Int

  /// A descriptor as it lies in a split ring's table (VIRTIO 1.4 §2.7.5), or one of a packed ring's chain without its marks.
  public struct Descriptor: Sendable, Hashable {
    /// Address of the buffer, as the device knows it.
    public var address: UInt64
    /// Its length in bytes.
    public var length: UInt32
    /// NEXT is 1, WRITE is 2, INDIRECT is 4.
    public var flags: UInt16
    /// The following descriptor, with NEXT.
    public var next: UInt16

    /// A descriptor of these fields.
    public init(address: UInt64, length: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
      self.address = address
      self.length = length
      self.flags = flags
      self.next = next
    }

    /// The chain goes on at `next`.
    public var hasNext: Bool { flags & 1 != 0 }
    /// The device writes this buffer.
    public var isWritable: Bool { flags & 2 != 0 }
    /// The buffer is a table of descriptors.
    public var isIndirect: Bool { flags & 4 != 0 }
  }

  init?(_ ring: VirtioQueuePlacement, memory: LyingMemory) {
    self.init(
      ring.format, size: ring.size, descriptors: ring.descriptors, driver: ring.driver, device: ring.device,
      memory: memory)
  }

  /// By the addresses that the device knows.
  init?(
    _ format: RingFormat, size: Int, descriptors: UInt64, driver: UInt64, device: UInt64, memory: LyingMemory
  ) {
    guard let layout = try? RingLayout(format, size: size),
      let descriptors = unsafe memory.pointer(descriptors, layout.descriptorBytes),
      let driver = unsafe memory.pointer(driver, layout.driverBytes),
      let device = unsafe memory.pointer(device, layout.deviceBytes)
    else { return nil }
    unsafe self.descriptors = descriptors
    unsafe available = driver
    unsafe used = device
    self.memory = memory
    self.format = format
    self.size = size
  }

  private func slot(_ position: UInt16) -> Int { Int(position) & (size - 1) }
}

// MARK: - What the driver wrote into a split ring

extension LyingRing {
  /// `avail.idx`.
  public var availableIndex: UInt16 {
    get { unsafe netdev_load_acquire_u16(available + 2) }
    nonmutating set { unsafe netdev_store_release_u16(available + 2, newValue) }
  }

  /// `avail.flags`: bit 0 asks for no interrupts.
  public var availableFlags: UInt16 { unsafe netdev_load_relaxed_u16(available) }

  /// `used_event`: where the driver wants to be interrupted, with EVENT_IDX.
  public var usedEvent: UInt16 { unsafe netdev_load_relaxed_u16(available + 4 + 2 * size) }

  /// The head that the driver put at `position` of the available ring; positions wrap.
  public func head(at position: UInt16) -> UInt16 {
    unsafe netdev_load_relaxed_u16(available + 4 + 2 * slot(position))
  }

  /// A descriptor of the table; `id` is taken modulo the size.
  public func descriptor(_ id: UInt16) -> Descriptor { unsafe Self.load(descriptors + 16 * slot(id)) }

  private static func load(_ place: UnsafeMutableRawPointer) -> Descriptor {
    let word = unsafe netdev_load_relaxed_u64(place + 8)
    return Descriptor(
      address: unsafe netdev_load_relaxed_u64(place), length: UInt32(truncatingIfNeeded: word),
      flags: UInt16(truncatingIfNeeded: word >> 32), next: UInt16(truncatingIfNeeded: word >> 48))
  }

  /// The chain that begins at `head`: its descriptors in order, those of an indirect table in place of the one that refers
  /// to it. At most as many as the ring has.
  public func chain(_ head: UInt16) -> [Descriptor] {
    var found: [Descriptor] = []
    var id = head
    while found.count < size {
      let one = descriptor(id)
      if one.isIndirect { return found + table(one) }
      found.append(one)
      guard one.hasNext else { break }
      id = one.next
    }
    return found
  }

  private func table(_ reference: Descriptor) -> [Descriptor] {
    let count = Int(reference.length) / 16
    guard let base = unsafe memory.pointer(reference.address, 16 * count) else { return [] }
    return (0..<count).map { unsafe Self.load(base + 16 * $0) }
  }
}

// MARK: - Buffers

extension LyingRing {
  /// The bytes of a buffer as they are now; empty when the driver has not shown them.
  public func bytes(_ descriptor: Descriptor) -> [UInt8] {
    guard let start = unsafe memory.pointer(descriptor.address, Int(descriptor.length)) else { return [] }
    return unsafe Array(UnsafeRawBufferPointer(start: start, count: Int(descriptor.length)))
  }

  /// Writes into memory that the driver has shown; false when it has not shown all of it.
  @discardableResult public func write(_ bytes: [UInt8], at address: UInt64) -> Bool {
    guard let start = unsafe memory.pointer(address, bytes.count) else { return false }
    unsafe bytes.withUnsafeBytes { source in
      guard let base = source.baseAddress else { return }
      unsafe start.copyMemory(from: base, byteCount: source.count)
    }
    return true
  }
}

// MARK: - What a device writes into a split ring

extension LyingRing {
  /// `used.idx`.
  public var usedIndex: UInt16 {
    get { unsafe netdev_load_acquire_u16(used + 2) }
    nonmutating set { unsafe netdev_store_release_u16(used + 2, newValue) }
  }

  /// `used.flags`: bit 0 asks for no kicks; a driver with EVENT_IDX does not look at it.
  public var usedFlags: UInt16 {
    get { unsafe netdev_load_relaxed_u16(used) }
    nonmutating set { unsafe netdev_store_relaxed_u16(used, newValue) }
  }

  /// `avail_event`: where the device wants to be kicked, with EVENT_IDX.
  public var availableEvent: UInt16 {
    get { unsafe netdev_load_relaxed_u16(used + 4 + 8 * size) }
    nonmutating set { unsafe netdev_store_relaxed_u16(used + 4 + 8 * size, newValue) }
  }

  /// Writes the used element at `position` without showing it: `usedIndex` does.
  public func setUsed(at position: UInt16, id: UInt32, length: UInt32) {
    let place = unsafe used + 4 + 8 * slot(position)
    unsafe netdev_store_relaxed_u32(place, id)
    unsafe netdev_store_relaxed_u32(place + 4, length)
  }
}

// MARK: - What no device may write into a split ring

extension LyingRing {
  /// Overwrites a descriptor of the driver's table.
  public func overwrite(descriptor id: UInt16, with new: Descriptor) {
    let place = unsafe descriptors + 16 * slot(id)
    unsafe netdev_store_relaxed_u64(place, new.address)
    unsafe netdev_store_relaxed_u64(
      place + 8, UInt64(new.length) | UInt64(new.flags) << 32 | UInt64(new.next) << 48)
  }

  /// Overwrites an entry of the available ring.
  public func overwrite(availableAt position: UInt16, with head: UInt16) {
    unsafe netdev_store_relaxed_u16(available + 4 + 2 * slot(position), head)
  }

  /// Overwrites the driver's suppression fields: `avail.flags` and `used_event`.
  public func overwriteSuppression(flags: UInt16, usedEvent: UInt16) {
    unsafe netdev_store_relaxed_u16(available, flags)
    unsafe netdev_store_relaxed_u16(available + 4 + 2 * size, usedEvent)
  }
}

// MARK: - A packed ring

extension LyingRing {
  /// A descriptor as it lies in a packed ring (VIRTIO 1.4 §2.8.13).
  public struct PackedDescriptor: Sendable, Hashable {
    /// Address of the buffer, as the device knows it; a used descriptor has none.
    public var address: UInt64
    /// Its length in bytes, or what was written.
    public var length: UInt32
    /// The buffer id.
    public var id: UInt16
    /// NEXT is 1, WRITE is 2, INDIRECT is 4, AVAIL is 128, USED is 32768.
    public var flags: UInt16
  }

  /// The descriptor at a place, which is taken modulo the size; the flags are loaded first.
  public func packedDescriptor(_ place: Int) -> PackedDescriptor {
    let place = unsafe descriptors + 16 * (place % size)
    let flags = unsafe netdev_load_acquire_u16(place + 14)
    return unsafe PackedDescriptor(
      address: netdev_load_relaxed_u64(place), length: netdev_load_relaxed_u32(place + 8),
      id: netdev_load_relaxed_u16(place + 12), flags: flags)
  }

  /// Writes over a descriptor's length, id and flags, the flags last; its address stays.
  public func setPackedDescriptor(_ place: Int, length: UInt32, id: UInt16, flags: UInt16) {
    let place = unsafe descriptors + 16 * (place % size)
    unsafe netdev_store_relaxed_u32(place + 8, length)
    unsafe netdev_store_relaxed_u16(place + 12, id)
    unsafe netdev_store_release_u16(place + 14, flags)
  }

  /// What the driver says about interrupts: off_wrap, then flags (VIRTIO 1.4 §2.8.14).
  public var driverWish: UInt32 { unsafe netdev_load_relaxed_u32(available) }

  /// What the device says about kicks.
  public var deviceWish: UInt32 {
    get { unsafe netdev_load_relaxed_u32(used) }
    nonmutating set { unsafe netdev_store_relaxed_u32(used, newValue) }
  }

  /// The descriptors of an indirect table: they follow one another, and only WRITE means anything.
  func packedTable(_ reference: PackedDescriptor) -> [Descriptor] {
    let count = Int(reference.length) / 16
    guard let base = unsafe memory.pointer(reference.address, 16 * count) else { return [] }
    return (0..<count).map { index in
      let place = unsafe base + 16 * index
      return unsafe Descriptor(
        address: netdev_load_relaxed_u64(place), length: netdev_load_relaxed_u32(place + 8),
        flags: netdev_load_relaxed_u16(place + 14) & 2)
    }
  }
}
