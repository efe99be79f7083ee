internal import CNetdevSystem
public import Virtio

/// A split ring as a driver that may lie sees it: plain memory, every field of which can be written with anything.
///
/// For tests of a device's side. It checks nothing and waits for nothing; the memory is the test's, and so is the moment: one
/// thread uses it at a time, beside the device.
@safe public final class LyingDriverRing {
  /// One descriptor, in the fields of VIRTIO 1.4 §2.7.5.
  public struct Descriptor: Sendable {
    /// Where the buffer is, in the addresses that the device was told.
    public var address: UInt64
    /// Bytes.
    public var length: UInt32
    /// `hasNext`, `isWritable`, `isIndirect`, or anything.
    public var flags: UInt16
    /// The next descriptor's index.
    public var next: UInt16

    /// VIRTQ_DESC_F_NEXT.
    public static let hasNext: UInt16 = 1
    /// VIRTQ_DESC_F_WRITE.
    public static let isWritable: UInt16 = 2
    /// VIRTQ_DESC_F_INDIRECT.
    public static let isIndirect: UInt16 = 4

    /// Makes a descriptor, true or not.
    public init(address: UInt64, length: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
      self.address = address
      self.length = length
      self.flags = flags
      self.next = next
    }
  }

  /// Where the ring's parts lie in its memory.
  public let layout: RingLayout
  private let block: UnsafeMutableRawPointer
  /// What the driver has made available so far.
  public var availIndex: UInt16
  /// What it has looked at of the used ring.
  public var usedIndex: UInt16

  /// Lays an empty ring.
  ///
  /// - Parameters:
  ///   - size: descriptors.
  ///   - block: `layout.totalBytes` of memory that outlives the ring.
  ///   - startIndex: where both indices begin; the device begins there too.
  /// - Throws: `RingError` when `size` is none for a split ring.
  public init(size: Int, block: UnsafeMutableRawPointer, startIndex: UInt16 = 0) throws(RingError) {
    layout = try RingLayout(.split, size: size)
    unsafe self.block = block
    availIndex = startIndex
    usedIndex = startIndex
    unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
    publish()
    unsafe netdev_store_release_u16(used + 2, startIndex)
  }

  private var avail: UnsafeMutableRawPointer { unsafe block + layout.driverOffset }
  private var used: UnsafeMutableRawPointer { unsafe block + layout.deviceOffset }
  private var mask: Int { Int(layout.size) - 1 }

  /// Writes a descriptor into the ring's table; `index` is below the size.
  public func write(_ descriptor: Descriptor, at index: Int) { unsafe Self.write(descriptor, to: block + 16 * index) }

  /// Writes a descriptor anywhere: 16 bytes.
  public static func write(_ descriptor: Descriptor, to place: UnsafeMutableRawPointer) {
    unsafe place.storeBytes(of: descriptor.address, as: UInt64.self)
    unsafe (place + 8).storeBytes(of: descriptor.length, as: UInt32.self)
    unsafe (place + 12).storeBytes(of: descriptor.flags, as: UInt16.self)
    unsafe (place + 14).storeBytes(of: descriptor.next, as: UInt16.self)
  }

  /// Puts a head on the available ring, true or not, and shows it with `publish`.
  public func offer(_ head: UInt16) {
    unsafe (avail + 4 + 2 * (Int(availIndex) & mask)).storeBytes(of: head, as: UInt16.self)
    availIndex &+= 1
  }

  /// Shows everything offered; or another index altogether.
  public func publish(index: UInt16? = nil) { unsafe netdev_store_release_u16(avail + 2, index ?? availIndex) }

  /// Used elements that have not been looked at.
  public var usedCount: Int { Int(unsafe netdev_load_acquire_u16(used + 2) &- usedIndex) }

  /// The next used element: the head of a chain, and the bytes that the device says it has written.
  public func takeUsed() -> (id: UInt32, written: UInt32)? {
    guard usedCount > 0 else { return nil }
    let element = unsafe used + 4 + 8 * (Int(usedIndex) & mask)
    usedIndex &+= 1
    return unsafe (element.load(as: UInt32.self), (element + 4).load(as: UInt32.self))
  }

  /// The driver's wish for interrupts without EVENT_IDX: 1 for none (VIRTIO 1.4 §2.7.7).
  public func setAvailFlags(_ flags: UInt16) { unsafe netdev_store_relaxed_u16(avail, flags) }
  /// The same with EVENT_IDX.
  public func setUsedEvent(_ event: UInt16) { unsafe netdev_store_relaxed_u16(avail + 4 + 2 * Int(layout.size), event) }
  /// The device's wish for kicks without EVENT_IDX: 1 for none (VIRTIO 1.4 §2.7.10).
  public var usedFlags: UInt16 { unsafe netdev_load_relaxed_u16(used) }
  /// The same with EVENT_IDX.
  public var availEvent: UInt16 { unsafe netdev_load_relaxed_u16(used + 4 + 8 * Int(layout.size)) }

  /// The descriptor table as it is now: a device must never change it.
  public var table: [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: block, count: layout.descriptorBytes)) }
}
