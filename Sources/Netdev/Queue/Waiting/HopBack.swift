internal import CNetdevSystem

/// The way back to the caller's executor, which the optimizer must leave in place.
///
/// Swift 6.3 takes the hop at the end of a `nonisolated(nonsending)` function away where, right behind an await, a typed error is
/// thrown on or another such function is called (swiftlang/swift #88687): the caller would go on on the loop, be it the main actor.
/// A call that the optimizer cannot look into keeps the hop before it.
package enum HopBack {
  /// Between an await and the next `nonisolated(nonsending)` call.
  package static func keep() { netdev_opaque() }
}

extension NetworkDeviceError {
  /// Itself, to be thrown on from behind an await: `throw error.broughtBack`.
  @usableFromInline package var broughtBack: NetworkDeviceError {
    HopBack.keep()
    return self
  }
}
