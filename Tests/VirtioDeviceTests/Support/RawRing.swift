import CNetdevSystem
import Virtio

/// A split ring as a driver that may lie sees it: plain memory, every field of which can be written with anything.
@safe final class RawRing {
  /// One descriptor, in the fields of VIRTIO 1.4 §2.7.5.
  struct Descriptor {
    var address: UInt64
    var length: UInt32
    var flags: UInt16 = 0
    var next: UInt16 = 0

    static let hasNext: UInt16 = 1
    static let isWritable: UInt16 = 2
    static let isIndirect: UInt16 = 4
  }

  let layout: SplitRingLayout
  let block: UnsafeMutableRawPointer
  /// What the driver has made available so far, and what it has looked at of the used ring.
  var availIndex: UInt16
  var usedIndex: UInt16

  init(size: Int, block: UnsafeMutableRawPointer, startIndex: UInt16 = 0) throws {
    layout = try SplitRingLayout(size: size)
    unsafe self.block = block
    availIndex = startIndex
    usedIndex = startIndex
    unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
    publish()
    unsafe netdev_store_release_u16(used + 2, startIndex)
  }

  private var avail: UnsafeMutableRawPointer { unsafe block + layout.availOffset }
  private var used: UnsafeMutableRawPointer { unsafe block + layout.usedOffset }
  private var mask: Int { Int(layout.size) - 1 }

  /// Writes a descriptor into the ring's table.
  func write(_ descriptor: Descriptor, at index: Int) { unsafe Self.write(descriptor, to: block + 16 * index) }

  /// Writes a descriptor anywhere.
  static func write(_ descriptor: Descriptor, to place: UnsafeMutableRawPointer) {
    unsafe place.storeBytes(of: descriptor.address, as: UInt64.self)
    unsafe (place + 8).storeBytes(of: descriptor.length, as: UInt32.self)
    unsafe (place + 12).storeBytes(of: descriptor.flags, as: UInt16.self)
    unsafe (place + 14).storeBytes(of: descriptor.next, as: UInt16.self)
  }

  /// Puts a head on the available ring, true or not, and shows it with `publish`.
  func offer(_ head: UInt16) {
    unsafe (avail + 4 + 2 * (Int(availIndex) & mask)).storeBytes(of: head, as: UInt16.self)
    availIndex &+= 1
  }

  /// Shows everything offered; or another index altogether.
  func publish(index: UInt16? = nil) { unsafe netdev_store_release_u16(avail + 2, index ?? availIndex) }

  /// Used elements that have not been looked at.
  var usedCount: Int { Int(unsafe netdev_load_acquire_u16(used + 2) &- usedIndex) }

  /// The next used element.
  func takeUsed() -> (id: UInt32, written: UInt32)? {
    guard usedCount > 0 else { return nil }
    let element = unsafe used + 4 + 8 * (Int(usedIndex) & mask)
    usedIndex &+= 1
    return unsafe (element.load(as: UInt32.self), (element + 4).load(as: UInt32.self))
  }

  /// The driver's wish for interrupts, without and with EVENT_IDX.
  func setAvailFlags(_ flags: UInt16) { unsafe netdev_store_relaxed_u16(avail, flags) }
  func setUsedEvent(_ event: UInt16) { unsafe netdev_store_relaxed_u16(avail + 4 + 2 * Int(layout.size), event) }
  /// The device's wish for kicks, without and with EVENT_IDX.
  var usedFlags: UInt16 { unsafe netdev_load_relaxed_u16(used) }
  var availEvent: UInt16 { unsafe netdev_load_relaxed_u16(used + 4 + 8 * Int(layout.size)) }

  /// The descriptor table as it is now: a device must never change it.
  var table: [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: block, count: layout.descriptorBytes)) }
}
