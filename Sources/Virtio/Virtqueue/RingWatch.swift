#if Testing
internal import Synchronization

// Only in builds for tests: what a monitor of simulated worlds is told of rings (`NetdevTesting/Rings`). It reads the rings by
// itself; it is told where they are, and when a side has made up its mind about a notification.

/// Where a ring lies, for whoever watches it.
@safe package struct WatchedRing: @unchecked Sendable {
  // Proof of Sendable: addresses, which whoever watches reads as another processor would.

  /// How reports call it.
  package let name: String
  /// Split or packed.
  package let format: RingFormat
  /// Number of descriptors.
  package let size: Int
  /// The descriptors, the driver area and the device area.
  package let areas:
    (descriptors: UnsafeMutableRawPointer, driver: UnsafeMutableRawPointer, device: UnsafeMutableRawPointer)
  /// What was negotiated.
  package let features: FeatureSet
  /// The device writes its buffers.
  package let isReceive: Bool
  /// Where bytes at a device address lie here.
  package let place: @Sendable (UInt64, Int) -> UnsafeRawPointer?

  /// A ring in one block, as `RingLayout` lays it out.
  package init(
    name: String, layout: RingLayout, block: UnsafeMutableRawPointer, features: FeatureSet, isReceive: Bool,
    place: @escaping @Sendable (UInt64, Int) -> UnsafeRawPointer?
  ) {
    self.name = name
    size = Int(layout.size)
    format = layout.format
    unsafe areas = (block, block + layout.driverOffset, block + layout.deviceOffset)
    self.features = features
    self.isReceive = isReceive
    unsafe self.place = place
  }
}

/// What happens to a ring. Rings are known by the address of their driver area.
package enum RingEvent: Sendable {
  /// It is laid, and empty.
  case laid(WatchedRing)
  /// Its memory goes, or nobody keeps its rules any more: its device is reset or lost.
  case gone(UInt)
  /// The driver is about to publish, or has: what is there is to be looked at before anything is written over it.
  case offered(UInt)
  /// The driver has asked whether the device wants a kick, and has rung or not.
  case kick(UInt, rang: Bool)
  /// The device has asked whether the driver wants an interrupt, and has sent it or not.
  case call(UInt, rang: Bool)
  /// The driver is about to take back what is used, and has touched nothing of it before.
  case taking(UInt)
}

/// Who is told.
package enum RingWatch {
  /// Kept in an object: a bare closure in a generic `Mutex` is wrapped once more each time it is read under the lock, and a call
  /// then goes through all of the wrappers.
  private final class Listener: Sendable {
    let hear: @Sendable (RingEvent) -> Void
    init(_ hear: @escaping @Sendable (RingEvent) -> Void) { self.hear = hear }
  }

  private static let listener = Mutex<Listener?>(nil)

  /// Calls `hear` on whatever thread something happens, from now on and until another one listens; nil ends that.
  package static func listen(_ hear: (@Sendable (RingEvent) -> Void)?) {
    let new = hear.map { Listener($0) }
    listener.withLock { $0 = new }
  }

  /// Tells it.
  package static func tell(_ event: RingEvent) {
    guard let listener = listener.withLock({ $0 }) else { return }
    listener.hear(event)
  }
}
#endif
