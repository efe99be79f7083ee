internal import CNetdevSystem
public import Virtio

/// A ring to watch: where it lies, and what was agreed about it.
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
  /// Split or packed.
  public let format: RingFormat
  /// Number of descriptors.
  public let size: Int
  let descriptors: UnsafeMutableRawPointer
  let driverArea: UnsafeMutableRawPointer
  let deviceArea: UnsafeMutableRawPointer
  /// EVENT_IDX was negotiated.
  public var eventIndex = false
  /// INDIRECT_DESC was negotiated.
  public var indirect = false
  /// IN_ORDER was negotiated.
  public var inOrder = false
  /// MRG_RXBUF was negotiated.
  public var mergedBuffers = false
  /// Which way its frames go.
  public var direction = Direction.other
  /// The index that both sides begin at: of a packed ring a place, with the wrap counter in bit 15.
  public var startIndex: UInt16
  /// Each time before its driver takes something back, the monitor is told (`RingMonitor.noteTaking`).
  public var saysWhatItTakes = false
  /// Where so many bytes at an address of the device's lie here; nil where that is not known, and then they are not looked at.
  /// The bytes stay mapped as long as the ring is watched.
  public var place: (@Sendable (_ address: UInt64, _ length: Int) -> UnsafeRawPointer?)?

  /// A ring in three areas, which stay mapped while it is watched.
  ///
  /// - Parameters:
  ///   - name: how reports call it.
  ///   - format: of which areas these are.
  ///   - areas: where it lies, and where it starts; of a size that the format has.
  public init(_ name: String, _ format: RingFormat, _ areas: RingAreas) {
    self.name = name
    self.format = format
    size = areas.size
    unsafe descriptors = areas.descriptors
    unsafe driverArea = areas.driver
    unsafe deviceArea = areas.device
    startIndex = areas.startIndex ?? format.firstIndex
  }

  /// What tells it from others: the address of its driver area.
  public var identity: UInt { unsafe UInt(bitPattern: driverArea) }
}

// MARK: - Reading a split ring

extension MonitoredRing {
  var availableFlags: UInt16 { unsafe netdev_load_relaxed_u16(driverArea) }
  var availableIndex: UInt16 { unsafe netdev_load_acquire_u16(driverArea + 2) }
  var usedEvent: UInt16 { unsafe netdev_load_relaxed_u16(driverArea + 4 + 2 * size) }
  var usedFlags: UInt16 { unsafe netdev_load_relaxed_u16(deviceArea) }
  var usedIndex: UInt16 { unsafe netdev_load_acquire_u16(deviceArea + 2) }
  var availableEvent: UInt16 { unsafe netdev_load_relaxed_u16(deviceArea + 4 + 8 * size) }

  func head(at position: UInt16) -> UInt16 {
    unsafe netdev_load_relaxed_u16(driverArea + 4 + 2 * (Int(position) & (size - 1)))
  }

  func usedElement(at position: UInt16) -> (id: UInt32, length: UInt32) {
    let place = unsafe deviceArea + 4 + 8 * (Int(position) & (size - 1))
    return unsafe (netdev_load_relaxed_u32(place), netdev_load_relaxed_u32(place + 4))
  }

  /// A descriptor of the table.
  func splitLink(_ index: Int) -> SplitLink { unsafe splitLink(index, of: UnsafeRawPointer(descriptors)) }

  /// A descriptor of the table, or of an indirect one.
  func splitLink(_ index: Int, of table: UnsafeRawPointer) -> SplitLink {
    let place = unsafe table + 16 * index
    return unsafe SplitLink(address: netdev_load_relaxed_u64(place), word: netdev_load_relaxed_u64(place + 8))
  }
}

// MARK: - Reading a packed ring

extension MonitoredRing {
  /// What the driver says about interrupts: off_wrap, then flags.
  var driverWish: UInt32 { unsafe netdev_load_relaxed_u32(driverArea) }
  /// What the device says about kicks.
  var deviceWish: UInt32 { unsafe netdev_load_relaxed_u32(deviceArea) }

  /// The descriptor at a place of the ring.
  func packedLink(_ place: Int) -> PackedLink { unsafe packedLink(place, of: UnsafeRawPointer(descriptors)) }

  /// A descriptor of the ring, or of an indirect table.
  func packedLink(_ index: Int, of table: UnsafeRawPointer) -> PackedLink {
    let place = unsafe table + 16 * index
    return unsafe PackedLink(address: netdev_load_relaxed_u64(place), word: netdev_load_relaxed_u64(place + 8))
  }
}

/// One buffer of a chain.
struct WatchedBuffer {
  let address: UInt64
  let length: UInt32
  let isWritable: Bool
}

/// A descriptor of a split ring as it was read, in two words.
struct SplitLink: Hashable {
  let address: UInt64
  let word: UInt64

  var length: UInt32 { UInt32(truncatingIfNeeded: word) }
  var hasNext: Bool { word & 1 << 32 != 0 }
  var isIndirect: Bool { word & 4 << 32 != 0 }
  var next: Int { Int(word >> 48) }
  var buffer: WatchedBuffer { WatchedBuffer(address: address, length: length, isWritable: word & 2 << 32 != 0) }
}

/// A descriptor of a packed ring as it was read, in two words.
struct PackedLink: Hashable {
  let address: UInt64
  let word: UInt64

  var length: UInt32 { UInt32(truncatingIfNeeded: word) }
  var id: UInt16 { UInt16(truncatingIfNeeded: word >> 32) }
  var flags: UInt16 { UInt16(truncatingIfNeeded: word >> 48) }
  var hasNext: Bool { flags & 1 != 0 }
  var isWritable: Bool { flags & 2 != 0 }
  var isIndirect: Bool { flags & 4 != 0 }
  /// The two marks, AVAIL and USED.
  private var marks: (available: Bool, used: Bool) { (flags & 0x80 != 0, flags & 0x8000 != 0) }
  var buffer: WatchedBuffer { WatchedBuffer(address: address, length: length, isWritable: isWritable) }

  /// Made available on the lap of this wrap counter.
  func isAvailable(_ wrap: Bool) -> Bool { marks == (wrap, !wrap) }
  /// Used on the lap of this wrap counter.
  func isUsed(_ wrap: Bool) -> Bool { marks == (wrap, wrap) }
}

#if Testing
extension MonitoredRing {
  /// A driver's ring, as it tells of it.
  init(_ ring: WatchedRing) {
    unsafe self.init(
      ring.name, ring.format,
      RingAreas(
        size: ring.size, descriptors: ring.areas.descriptors, driver: ring.areas.driver, device: ring.areas.device))
    eventIndex = ring.features.contains(.eventIndex)
    indirect = ring.features.contains(.indirectDesc)
    inOrder = ring.features.contains(.inOrder)
    mergedBuffers = ring.features.contains(.mrgRxbuf)
    direction = ring.isReceive ? .receive : .transmit
    saysWhatItTakes = true
    unsafe place = ring.place
  }
}
#endif
