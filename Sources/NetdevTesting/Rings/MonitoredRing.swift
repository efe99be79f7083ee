internal import CNetdevSystem
internal import Virtio

/// A split ring to watch: where it lies, and what was agreed about it.
@safe public struct MonitoredRing: @unchecked Sendable {
  // Proof of Sendable: constants; what they point to is read by atomic loads, as another processor's memory.

  /// Which way its frames go.
  public enum Direction: Sendable {
    /// The device writes frames into its buffers.
    case receive
    /// The device reads frames from its buffers.
    case transmit
    /// No frames, or none that are looked at.
    case other
  }

  /// How reports call it.
  public var name: String
  /// Number of descriptors: a power of two.
  public let size: Int
  let descriptors: UnsafeMutableRawPointer
  let available: UnsafeMutableRawPointer
  let used: UnsafeMutableRawPointer
  /// EVENT_IDX was negotiated.
  public var eventIndex = false
  /// INDIRECT_DESC was negotiated.
  public var indirect = false
  /// MRG_RXBUF was negotiated.
  public var mergedBuffers = false
  /// Which way its frames go.
  public var direction = Direction.other
  /// The index that both sides begin at.
  public var startIndex: UInt16 = 0
  /// Each time before its driver takes something back, the monitor is told (`RingMonitor.noteTaking`).
  public var saysWhatItTakes = false
  /// Where so many bytes at an address of the device's lie here; nil where that is not known, and then they are not looked at.
  /// The bytes stay mapped as long as the ring is watched.
  public var place: (@Sendable (_ address: UInt64, _ length: Int) -> UnsafeRawPointer?)?

  /// A ring of `size` descriptors in three areas as VIRTIO 1.4 §2.7 lays them out, which stay mapped while it is watched.
  public init(
    _ name: String, size: Int, descriptors: UnsafeMutableRawPointer, available: UnsafeMutableRawPointer,
    used: UnsafeMutableRawPointer
  ) {
    self.name = name
    self.size = size
    unsafe self.descriptors = descriptors
    unsafe self.available = available
    unsafe self.used = used
  }

  /// What tells it from others: the address of its available ring.
  public var identity: UInt { unsafe UInt(bitPattern: available) }

  // MARK: Reading

  var availableFlags: UInt16 { unsafe netdev_load_relaxed_u16(available) }
  var availableIndex: UInt16 { unsafe netdev_load_acquire_u16(available + 2) }
  var usedEvent: UInt16 { unsafe netdev_load_relaxed_u16(available + 4 + 2 * size) }
  var usedFlags: UInt16 { unsafe netdev_load_relaxed_u16(used) }
  var usedIndex: UInt16 { unsafe netdev_load_acquire_u16(used + 2) }
  var availableEvent: UInt16 { unsafe netdev_load_relaxed_u16(used + 4 + 8 * size) }

  func head(at position: UInt16) -> UInt16 {
    unsafe netdev_load_relaxed_u16(available + 4 + 2 * (Int(position) & (size - 1)))
  }

  func usedElement(at position: UInt16) -> (id: UInt32, length: UInt32) {
    let place = unsafe used + 4 + 8 * (Int(position) & (size - 1))
    return unsafe (netdev_load_relaxed_u32(place), netdev_load_relaxed_u32(place + 4))
  }

  /// A descriptor of the table.
  func descriptor(_ index: Int) -> RingLink { unsafe descriptor(index, of: UnsafeRawPointer(descriptors)) }

  /// A descriptor of the table, or of an indirect one.
  func descriptor(_ index: Int, of table: UnsafeRawPointer) -> RingLink {
    let place = unsafe table + 16 * index
    return unsafe RingLink(address: netdev_load_relaxed_u64(place), word: netdev_load_relaxed_u64(place + 8))
  }
}

/// A descriptor as it was read, in two words.
struct RingLink: Hashable {
  let address: UInt64
  let word: UInt64

  var length: UInt32 { UInt32(truncatingIfNeeded: word) }
  var hasNext: Bool { word & 1 << 32 != 0 }
  var isWritable: Bool { word & 2 << 32 != 0 }
  var isIndirect: Bool { word & 4 << 32 != 0 }
  var next: Int { Int(word >> 48) }
}

#if Testing
extension MonitoredRing {
  /// A driver's ring, as it tells of it.
  init(_ ring: WatchedRing) {
    unsafe self.init(
      ring.name, size: ring.size, descriptors: ring.areas.descriptors, available: ring.areas.available,
      used: ring.areas.used)
    eventIndex = ring.features.contains(.eventIndex)
    indirect = ring.features.contains(.indirectDesc)
    mergedBuffers = ring.features.contains(.mrgRxbuf)
    direction = ring.isReceive ? .receive : .transmit
    saysWhatItTakes = true
    unsafe place = ring.place
  }
}
#endif
