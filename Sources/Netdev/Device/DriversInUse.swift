internal import Synchronization

/// The driver objects that drive a device now: one device at a time each.
enum DriversInUse {
  private static let drivers = Mutex<Set<ObjectIdentifier>>([])

  /// False when the driver drives a device already. Whoever claims a driver keeps it alive until it is released.
  static func claim(_ driver: any NetworkDriver) -> Bool {
    drivers.withLock { $0.insert(ObjectIdentifier(driver)).inserted }
  }

  static func release(_ driver: any NetworkDriver) {
    drivers.withLock { _ = $0.remove(ObjectIdentifier(driver)) }
  }
}
