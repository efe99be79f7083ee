/// The free descriptors of a split ring: a circle of ids, taken at one end and returned at the other.
///
/// It starts in table order; as long as chains come back in the order they went out it stays so, which is the order that IN_ORDER
/// asks of the driver (VIRTIO 1.4 §2.7.9). One circle therefore serves both modes, and needs no links.
@frozen
@usableFromInline
@safe
struct IdCircle: ~Copyable {
  /// As many ids as the ring has descriptors, owned.
  @usableFromInline let ids: UnsafeMutablePointer<UInt16>
  /// Size of the ring minus one.
  @usableFromInline let mask: UInt32
  /// Ids taken since the start; wraps.
  @usableFromInline var taken: UInt32
  /// Ids put back since the start, as many as there are at first; wraps.
  @usableFromInline var returned: UInt32

  init(size: UInt16) {
    unsafe ids = .allocate(capacity: Int(size))
    mask = UInt32(size) - 1
    taken = 0
    returned = 0
    clear()
  }

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit { unsafe ids.deallocate() }

  /// Descriptors that may be taken.
  @inlinable var free: UInt32 { returned &- taken }

  /// Makes every descriptor free, in table order.
  mutating func clear() {
    for id in 0...Int(mask) { unsafe (ids + id).initialize(to: UInt16(truncatingIfNeeded: id)) }
    taken = 0
    returned = mask &+ 1
  }

  /// Takes everything out: nothing can be added until `clear`.
  @usableFromInline
  mutating func close() { taken = returned }

  /// Takes one free descriptor; the caller has looked at `free`.
  @inlinable
  @inline(__always)
  mutating func take() -> UInt16 {
    // The index is masked to the capacity.
    let id = unsafe ids[Int(taken & mask)]
    taken &+= 1
    return id
  }

  /// Puts the `count` descriptors of the chain at `head` back, in chain order. `head` is below the size.
  @inlinable
  mutating func putChain(head: UInt16, count: UInt16, links: borrowing ShadowTable) {
    var id = head
    for _ in 0..<count {
      // The index is masked to the capacity; ids come from the driver's own links.
      unsafe ids[Int(returned & mask)] = id
      returned &+= 1
      id = unsafe links.entries[Int(id)].next
    }
  }
}
