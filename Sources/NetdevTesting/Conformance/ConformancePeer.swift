/// The other end of the wire of a driver under test: it sends each frame back as it came, in order, to the queue pair that
/// it came from.
///
/// Its methods may be called from any thread, also from the driver's own loop: they do not wait for the driver.
public protocol ConformancePeer: AnyObject, Sendable {
  /// Frames that reach the peer from now on wait there. A peer that cannot is declared as lacking `peerHolds`.
  func hold()

  /// Frames that wait go back, in order, and later ones at once again.
  func letGo()

  /// Frames sent back so far, each counted when it lies where the driver finds it; nil when the peer cannot say that, or
  /// cannot go on while the driver's loop waits for it.
  var returned: Int? { get }

  /// The check is over and the driver is shut down: releases whatever the wire is made of.
  func close() async
}

extension ConformancePeer {
  /// A peer that cannot hold.
  public func hold() {}
  /// Nothing is held.
  public func letGo() {}
  /// It is not counted.
  public var returned: Int? { nil }
  /// Nothing to release.
  public func close() async {}
}

/// A peer for drivers whose device sends frames back by itself, a loopback: it cannot hold.
public final class LoopbackPeer: ConformancePeer {
  /// Nothing to do.
  public init() {}
}
