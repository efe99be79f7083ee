import CNetdevSystem
import FuzzSupport
import Virtio

/// The three areas of a ring of either format, and what a peer may write there.
struct RawRing {
  let layout: RingLayout
  let descriptors: UnsafeMutableRawPointer
  let driver: UnsafeMutableRawPointer
  let device: UnsafeMutableRawPointer
  /// What the areas lie in, if they have memory of their own.
  private let fences: [FencedMemory]

  /// Areas in fenced memory, each by itself.
  init(_ format: RingFormat, size: Int, edge: FencedMemory.Edge) {
    guard let layout = try? RingLayout(format, size: size) else { violated("\(size) is a size") }
    let fences = [
      FencedMemory(layout.descriptorBytes, edge: edge),
      FencedMemory(layout.driverBytes, edge: edge, alignment: layout.driverAlignment),
      FencedMemory(layout.deviceBytes, edge: edge, alignment: layout.deviceAlignment),
    ]
    self.init(layout, fences[0].start, fences[1].start, fences[2].start, fences)
  }

  /// Areas that lie somewhere already.
  init(
    _ layout: RingLayout, _ descriptors: UnsafeMutableRawPointer, _ driver: UnsafeMutableRawPointer,
    _ device: UnsafeMutableRawPointer, _ fences: [FencedMemory] = []
  ) {
    self.layout = layout
    self.descriptors = descriptors
    self.driver = driver
    self.device = device
    self.fences = fences
  }

  var size: Int { Int(layout.size) }
  var format: RingFormat { layout.format }
  /// As a ring is told of them.
  var areas: RingAreas { RingAreas(size: size, descriptors: descriptors, driver: driver, device: device) }
  private func slot(_ index: UInt16) -> Int { Int(index) % size }

  // MARK: Of a split ring

  var availIndex: UInt16 {
    get { netdev_load_relaxed_u16(driver + 2) }
    nonmutating set { netdev_store_relaxed_u16(driver + 2, newValue) }
  }
  var usedIndex: UInt16 {
    get { netdev_load_relaxed_u16(device + 2) }
    nonmutating set { netdev_store_relaxed_u16(device + 2, newValue) }
  }

  func head(_ index: UInt16) -> UInt16 { netdev_load_relaxed_u16(driver + 4 + 2 * slot(index)) }
  func setHead(_ index: UInt16, _ head: UInt16) { netdev_store_relaxed_u16(driver + 4 + 2 * slot(index), head) }

  func setUsed(_ index: UInt16, id: UInt32, length: UInt32) {
    netdev_store_relaxed_u32(device + 4 + 8 * slot(index), id)
    netdev_store_relaxed_u32(device + 8 + 8 * slot(index), length)
  }

  // MARK: Of a packed ring

  /// The place, below the size, as it is.
  func packed(_ place: Int) -> (address: UInt64, length: UInt32, id: UInt16, flags: UInt16) {
    let descriptor = descriptors + 16 * (place % size)
    return (
      netdev_load_relaxed_u64(descriptor), netdev_load_relaxed_u32(descriptor + 8),
      netdev_load_relaxed_u16(descriptor + 12), netdev_load_relaxed_u16(descriptor + 14)
    )
  }

  func setPacked(_ place: Int, address: UInt64? = nil, length: UInt32, id: UInt16, flags: UInt16) {
    let descriptor = descriptors + 16 * (place % size)
    if let address { netdev_store_relaxed_u64(descriptor, address) }
    netdev_store_relaxed_u32(descriptor + 8, length)
    netdev_store_relaxed_u16(descriptor + 12, id)
    netdev_store_relaxed_u16(descriptor + 14, flags)
  }

  // MARK: Of both

  func setDescriptor(_ index: Int, _ descriptor: RawDescriptor) { descriptor.store(descriptors + 16 * (index % size)) }

  /// Writes a byte anywhere in the three areas.
  func scribble(at place: UInt16, _ value: UInt8) {
    var place = Int(place) % (layout.descriptorBytes + layout.driverBytes + layout.deviceBytes)
    for (area, count) in [
      (driver, layout.driverBytes), (device, layout.deviceBytes), (descriptors, layout.descriptorBytes),
    ] {
      if place < count { return (area + place).storeBytes(of: value, as: UInt8.self) }
      place -= count
    }
  }
}

/// Where a side of a packed ring is: a place and a wrap counter.
struct RawPosition {
  var place = 0
  var wrap = true

  init(_ index: UInt16) { (place, wrap) = (Int(index & 0x7fff), index & 0x8000 != 0) }

  mutating func advance(_ count: Int, _ size: Int) {
    place += count
    while place >= size { (place, wrap) = (place - size, !wrap) }
  }

  var available: UInt16 { wrap ? 0x80 : 0x8000 }
  var used: UInt16 { wrap ? 0x8080 : 0 }
}

/// A descriptor of a peer's making (VIRTIO 1.4 §2.7.5).
struct RawDescriptor {
  var address: UInt64
  var length: UInt32
  var flags: UInt16 = 0
  var next: UInt16 = 0

  static let hasNext: UInt16 = 1
  static let isWritable: UInt16 = 2
  static let isIndirect: UInt16 = 4

  func store(_ place: UnsafeMutableRawPointer) {
    place.storeBytes(of: address, as: UInt64.self)
    (place + 8).storeBytes(of: length, as: UInt32.self)
    (place + 12).storeBytes(of: flags, as: UInt16.self)
    (place + 14).storeBytes(of: next, as: UInt16.self)
  }
}
