import CNetdevSystem
import RingThreads
import Virtio

/// A device of either format with the raw ring in its hands: it sees what the driver offers, and may claim to have used anything.
struct RawDevice {
  /// A chain that the driver has made available.
  struct Chain: Equatable {
    var id: UInt32
    /// Descriptors, in the packed ring places.
    var places: Int
    var writable: UInt32
  }

  private let place: RingPlace
  private var available: Int
  private var availableWrap = true
  private var used: Int
  private var usedWrap = true

  /// A device of a ring that has just been laid.
  init(_ place: RingPlace) {
    self.place = place
    let index = place.setting.startIndex ?? place.setting.format.firstIndex
    available = Int(place.setting.format == .packed ? index & 0x7fff : index)
    used = available
    if place.setting.format == .packed {
      availableWrap = index & 0x8000 != 0
      usedWrap = availableWrap
    }
  }

  private var size: Int { place.setting.size }
  private var driverArea: UnsafeMutableRawPointer { unsafe place.block + place.layout.driverOffset }
  private var deviceArea: UnsafeMutableRawPointer { unsafe place.block + place.layout.deviceOffset }

  private func packed(_ index: Int) -> UnsafeMutableRawPointer { unsafe place.block + 16 * index }

  private static func marks(_ wrap: Bool, isUsed: Bool) -> UInt16 {
    (wrap ? 0x80 : 0) | (wrap == isUsed ? 0x8000 : 0)
  }

  /// Takes the next chain that the driver offers; indirect tables count as one descriptor of no writable bytes.
  mutating func take() -> Chain? {
    switch place.setting.format {
    case .split:
      let index = UInt16(truncatingIfNeeded: available)
      guard unsafe netdev_load_acquire_u16(driverArea + 2) != index else { return nil }
      let head = unsafe netdev_load_relaxed_u16(driverArea + 4 + 2 * (available % size))
      available = Int(index &+ 1)
      var chain = Chain(id: UInt32(head), places: 0, writable: 0)
      var id = head
      while true {
        let word = unsafe netdev_load_relaxed_u64(place.block + 16 * Int(id) + 8)
        chain.places += 1
        if word & 2 << 32 != 0 { chain.writable += UInt32(truncatingIfNeeded: word) }
        guard word & 1 << 32 != 0 else { return chain }
        id = UInt16(truncatingIfNeeded: word >> 48)
      }
    case .packed:
      var chain = Chain(id: 0, places: 0, writable: 0)
      while true {
        let flags = unsafe netdev_load_acquire_u16(packed(available) + 14)
        guard chain.places > 0 || flags & 0x8080 == Self.marks(availableWrap, isUsed: false) else { return nil }
        chain.places += 1
        if flags & 2 != 0 { chain.writable += unsafe netdev_load_relaxed_u32(packed(available) + 8) }
        chain.id = UInt32(unsafe netdev_load_relaxed_u16(packed(available) + 12))
        available += 1
        if available == size { (available, availableWrap) = (0, !availableWrap) }
        guard flags & 1 != 0 else { return chain }
      }
    }
  }

  /// Claims to have used a chain of this id, true or not, and goes on behind `places` descriptors of a packed ring.
  mutating func use(id: UInt32, length: UInt32, places: Int = 1, chains: Int = 1) {
    switch place.setting.format {
    case .split:
      let element = unsafe deviceArea + 4 + 8 * (used % size)
      unsafe netdev_store_relaxed_u32(element, id)
      unsafe netdev_store_relaxed_u32(element + 4, length)
      used = Int(UInt16(truncatingIfNeeded: used + chains))
      unsafe netdev_store_release_u16(deviceArea + 2, UInt16(truncatingIfNeeded: used))
    case .packed:
      unsafe netdev_store_relaxed_u32(packed(used) + 8, length)
      unsafe netdev_store_relaxed_u16(packed(used) + 12, UInt16(truncatingIfNeeded: id))
      unsafe netdev_store_release_u16(packed(used) + 14, Self.marks(usedWrap, isUsed: true) | (length > 0 ? 2 : 0))
      used += places
      if used >= size { (used, usedWrap) = (used - size, !usedWrap) }
    }
  }

  /// Says when it wants kicks, without EVENT_IDX: always, or never.
  func wantKicks(_ wanted: Bool) {
    switch place.setting.format {
    case .split: unsafe netdev_store_release_u16(deviceArea, wanted ? 0 : 1)
    case .packed: unsafe netdev_store_release_u32(deviceArea, wanted ? 0 : 1 << 16)
    }
  }
}
