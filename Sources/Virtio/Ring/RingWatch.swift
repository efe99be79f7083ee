#if Testing
public import Synchronization

// Only in builds for tests: what a monitor of simulated worlds is told of rings (`NetdevTesting/Rings`). It reads the rings by
// itself; it is told where they are, and when a side has made up its mind about a notification.

/// Where a ring lies, for whoever watches it.
@safe public struct WatchedRing: @unchecked Sendable {
  // Proof of Sendable: addresses, which whoever watches reads as another processor would.

  /// How reports call it.
  public let name: String
  /// Number of descriptors.
  public let size: Int
  /// The descriptor table, the available ring and the used ring.
  public let areas:
    (descriptors: UnsafeMutableRawPointer, available: UnsafeMutableRawPointer, used: UnsafeMutableRawPointer)
  /// What was negotiated.
  public let features: FeatureSet
  /// The device writes its buffers.
  public let isReceive: Bool
  /// Where bytes at a device address lie here.
  public let place: @Sendable (UInt64, Int) -> UnsafeRawPointer?

  /// A ring in one block, as `SplitRingLayout` lays it out.
  public init(
    name: String, layout: SplitRingLayout, block: UnsafeMutableRawPointer, features: FeatureSet, isReceive: Bool,
    place: @escaping @Sendable (UInt64, Int) -> UnsafeRawPointer?
  ) {
    self.name = name
    size = Int(layout.size)
    unsafe areas = (block, block + layout.availOffset, block + layout.usedOffset)
    self.features = features
    self.isReceive = isReceive
    unsafe self.place = place
  }
}

/// What happens to a ring. Rings are known by the address of their available ring.
public enum RingEvent: Sendable {
  /// It is laid, and empty.
  case laid(WatchedRing)
  /// Its memory goes, or nobody keeps its rules any more: its device is reset or lost.
  case gone(UInt)
  /// The driver has asked whether the device wants a kick, and has rung or not.
  case kick(UInt, rang: Bool)
  /// The device has asked whether the driver wants an interrupt, and has sent it or not.
  case call(UInt, rang: Bool)
}

/// Who is told.
public enum RingWatch {
  /// Called on whatever thread it happens.
  public static let listener = Mutex<(@Sendable (RingEvent) -> Void)?>(nil)

  /// Tells it.
  public static func tell(_ event: RingEvent) {
    guard let listener = listener.withLock({ $0 }) else { return }
    listener(event)
  }
}

extension SplitDriverRing {
  /// What tells the ring from others.
  public var identity: UInt { unsafe UInt(bitPattern: availEntries - 4) }
}

extension SplitDeviceRing {
  /// What tells the ring from others, to a driver in the same mapping.
  public var identity: UInt { unsafe UInt(bitPattern: availEntries - 4) }
}
#endif
