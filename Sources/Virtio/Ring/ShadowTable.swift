/// The driver's own record of every descriptor: which chains are out, whose they are, what the device may write.
///
/// Descriptor tables in shared memory are write-only to the driver: what it must know later it keeps here, where the device
/// cannot reach. The free descriptors wait in a circle of ids, taken at one end and returned at the other. The circle starts
/// in table order; as long as chains come back in the order they went out it stays so, which is the order that IN_ORDER asks
/// of the driver (VIRTIO 1.4 §2.7.9). One circle therefore serves both modes, and needs no links.
@frozen
@usableFromInline
@safe
struct ShadowTable: ~Copyable {
  /// One descriptor's private state: 16 bytes.
  @frozen
  @usableFromInline
  struct Entry {
    /// The caller's token; meaningful at an outstanding head.
    @usableFromInline var token: UInt64
    /// Bytes that the device may write into the chain of this head.
    @usableFromInline var writable: UInt32
    /// The following descriptor of the same chain.
    @usableFromInline var next: UInt16
    /// Descriptors of the chain that starts here; zero everywhere but at an outstanding head.
    @usableFromInline var count: UInt16

    @inlinable
    @inline(__always)
    init(token: UInt64, writable: UInt32, next: UInt16, count: UInt16) {
      self.token = token
      self.writable = writable
      self.next = next
      self.count = count
    }

    /// The start of a chain of one descriptor, in two stores: next to nothing of a burst is anything else.
    @inlinable
    @inline(__always)
    static func writeSingle(to entry: UnsafeMutablePointer<Entry>, token: UInt64, writable: UInt32) {
      let place = UnsafeMutableRawPointer(entry)
      unsafe place.storeBytes(of: token, as: UInt64.self)
      // `writable`, `next` and `count` as they lie in memory, the first one lowest.
      unsafe place.storeBytes(of: (UInt64(writable) | 1 << 48).littleEndian, toByteOffset: 8, as: UInt64.self)
    }
  }

  /// `size` entries, owned.
  @usableFromInline let entries: UnsafeMutablePointer<Entry>
  /// `size` numbers, owned: at an outstanding head whose buffers the device reads, the index of its publication. The available ring forgets it, where the device
  /// returns newer chains first and their places are used again.
  @usableFromInline let published: UnsafeMutablePointer<UInt32>
  /// `size` ids, owned: the circle of free descriptors.
  @usableFromInline let freeIds: UnsafeMutablePointer<UInt16>
  /// Size of the ring minus one.
  @usableFromInline let mask: UInt32
  /// Descriptors taken from the circle since the start; wraps.
  @usableFromInline var taken: UInt32
  /// Descriptors put into the circle since the start, `size` at first; wraps.
  @usableFromInline var returned: UInt32

  init(size: UInt16) {
    unsafe entries = .allocate(capacity: Int(size))
    unsafe published = .allocate(capacity: Int(size))
    unsafe published.initialize(repeating: 0, count: Int(size))
    unsafe freeIds = .allocate(capacity: Int(size))
    mask = UInt32(size) - 1
    taken = 0
    returned = 0
    clear()
  }

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit {
    // All are trivial: nothing to deinitialize.
    unsafe entries.deallocate()
    unsafe published.deallocate()
    unsafe freeIds.deallocate()
  }

  /// Descriptors that may be taken.
  @inlinable var free: UInt32 { returned &- taken }

  /// Makes every descriptor free, in table order.
  mutating func clear() {
    for id in 0...Int(mask) {
      unsafe (entries + id).initialize(to: Entry(token: 0, writable: 0, next: 0, count: 0))
      unsafe (freeIds + id).initialize(to: UInt16(truncatingIfNeeded: id))
    }
    taken = 0
    returned = mask &+ 1
  }

  /// Takes everything out of the circle: nothing can be added until `clear`.
  @usableFromInline
  mutating func close() { taken = returned }

  /// Takes one free descriptor; the caller has looked at `free`.
  @inlinable
  @inline(__always)
  mutating func take() -> UInt16 {
    // The index is masked to the capacity.
    let id = unsafe freeIds[Int(taken & mask)]
    taken &+= 1
    return id
  }

  /// Puts the `count` descriptors of the chain at `head` back, in chain order. `head` is below the size.
  @inlinable
  mutating func putChain(head: UInt16, count: UInt16) {
    var id = head
    for _ in 0..<count {
      // The index is masked to the capacity; ids come from the driver's own links.
      unsafe freeIds[Int(returned & mask)] = id
      returned &+= 1
      id = unsafe entries[Int(id)].next
    }
  }
}
