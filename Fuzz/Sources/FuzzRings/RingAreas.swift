import CNetdevSystem
import FuzzSupport
import Virtio

/// The three areas of a split ring, and every field of them as a peer may write it.
struct RingAreas {
  let layout: SplitRingLayout
  let descriptors: UnsafeMutableRawPointer
  let avail: UnsafeMutableRawPointer
  let used: UnsafeMutableRawPointer
  /// What the areas lie in, if they have memory of their own.
  private let fences: [FencedMemory]

  /// Areas in fenced memory, each by itself.
  init(size: Int, edge: FencedMemory.Edge) {
    guard let layout = try? SplitRingLayout(size: size) else { violated("\(size) is a size") }
    let fences = [
      FencedMemory(layout.descriptorBytes, edge: edge),
      FencedMemory(layout.availBytes, edge: edge, alignment: 2),
      FencedMemory(layout.usedBytes, edge: edge, alignment: 4),
    ]
    self.init(layout, fences[0].start, fences[1].start, fences[2].start, fences)
  }

  /// Areas that lie somewhere already.
  init(
    _ layout: SplitRingLayout, _ descriptors: UnsafeMutableRawPointer, _ avail: UnsafeMutableRawPointer,
    _ used: UnsafeMutableRawPointer, _ fences: [FencedMemory] = []
  ) {
    self.layout = layout
    self.descriptors = descriptors
    self.avail = avail
    self.used = used
    self.fences = fences
  }

  var size: Int { Int(layout.size) }
  private func slot(_ index: UInt16) -> Int { Int(index) % size }

  var availIndex: UInt16 {
    get { netdev_load_relaxed_u16(avail + 2) }
    nonmutating set { netdev_store_relaxed_u16(avail + 2, newValue) }
  }
  var usedIndex: UInt16 {
    get { netdev_load_relaxed_u16(used + 2) }
    nonmutating set { netdev_store_relaxed_u16(used + 2, newValue) }
  }

  func head(_ index: UInt16) -> UInt16 { netdev_load_relaxed_u16(avail + 4 + 2 * slot(index)) }
  func setHead(_ index: UInt16, _ head: UInt16) { netdev_store_relaxed_u16(avail + 4 + 2 * slot(index), head) }

  func setUsed(_ index: UInt16, id: UInt32, length: UInt32) {
    netdev_store_relaxed_u32(used + 4 + 8 * slot(index), id)
    netdev_store_relaxed_u32(used + 8 + 8 * slot(index), length)
  }

  func setDescriptor(_ index: Int, _ descriptor: RawDescriptor) { descriptor.store(descriptors + 16 * (index % size)) }

  /// Writes a byte anywhere in the three areas.
  func scribble(at place: UInt16, _ value: UInt8) {
    var place = Int(place) % (layout.descriptorBytes + layout.availBytes + layout.usedBytes)
    for (area, count) in [(avail, layout.availBytes), (used, layout.usedBytes), (descriptors, layout.descriptorBytes)] {
      if place < count { return (area + place).storeBytes(of: value, as: UInt8.self) }
      place -= count
    }
  }
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
