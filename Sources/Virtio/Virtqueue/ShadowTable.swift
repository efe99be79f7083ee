/// The driver's own record of what is out, whose it is, and what the device may write: by descriptor in a split ring, by buffer
/// id in a packed one.
///
/// Descriptors in shared memory are write-only to the driver: what it must know later it keeps here, where the device cannot
/// reach.
@frozen
@usableFromInline
@safe
struct ShadowTable: ~Copyable {
  /// The private state of one id: 16 bytes.
  @frozen
  @usableFromInline
  struct Entry {
    /// The caller's token; meaningful at an outstanding head.
    @usableFromInline var token: UInt64
    /// Bytes that the device may write into the chain of this head.
    @usableFromInline var writable: UInt32
    /// Descriptors of the chain with this head, or this id; zero everywhere but where one is outstanding.
    @usableFromInline var count: UInt16
    /// The following descriptor of the same chain.
    @usableFromInline var next: UInt16

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
      // `writable`, `count` and `next` as they lie in memory, the first one lowest.
      unsafe place.storeBytes(of: (UInt64(writable) | 1 << 32).littleEndian, toByteOffset: 8, as: UInt64.self)
    }
  }

  /// `size` entries, owned.
  @usableFromInline let entries: UnsafeMutablePointer<Entry>
  /// `size` numbers, owned: of an outstanding chain whose buffers the device reads, the index of its publication. The available
  /// ring forgets it, where the device returns newer chains first and their places are used again.
  @usableFromInline let published: UnsafeMutablePointer<UInt32>
  /// Ids: the size of the ring.
  @usableFromInline let size: UInt32

  init(size: UInt16) {
    unsafe entries = .allocate(capacity: Int(size))
    unsafe published = .allocate(capacity: Int(size))
    unsafe published.initialize(repeating: 0, count: Int(size))
    self.size = UInt32(size)
    clear()
  }

  // Inlinable, as everything of a frozen type that other inlinable code destroys.
  @inlinable
  deinit {
    // Both are trivial: nothing to deinitialize.
    unsafe entries.deallocate()
    unsafe published.deallocate()
  }

  /// Forgets everything.
  mutating func clear() {
    for id in 0..<Int(size) {
      unsafe (entries + id).initialize(to: Entry(token: 0, writable: 0, next: 0, count: 0))
    }
  }

  /// Forgets every outstanding chain, in the order of ids, and says how many there were.
  mutating func drain(_ body: (UInt64) -> Void) -> Int {
    var count = 0
    for id in 0..<Int(size) {
      // Below the size.
      let entry = unsafe entries + id
      guard unsafe entry.pointee.count != 0 else { continue }
      unsafe entry.pointee.count = 0
      count += 1
      body(unsafe entry.pointee.token)
    }
    return count
  }

  /// The tokens of all outstanding chains in the order of publication, the last of which was before `index`.
  func tokensInOrder(before index: UInt32) -> [UInt64] {
    // Ages, so that the wrapping of the indices does not matter.
    var chains: [(age: UInt32, token: UInt64)] = []
    for id in 0..<Int(size) where unsafe entries[id].count != 0 {
      unsafe chains.append((index &- published[id], entries[id].token))
    }
    return chains.sorted { $0.age > $1.age }.map { $0.token }
  }

  /// Outstanding chains.
  var outstanding: Int { (0..<Int(size)).reduce(0) { $0 + (unsafe entries[$1].count == 0 ? 0 : 1) } }
}
