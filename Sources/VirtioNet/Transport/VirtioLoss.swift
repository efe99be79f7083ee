public import Netdev

/// A device that was lost.
public struct VirtioLoss: Sendable {
  /// Why.
  public let cause: NetworkDeviceError
  /// Says whether the lost device is known to touch no memory any more, and waits for that no longer than it is told, and
  /// not at all when told zero; a cancelled task stops waiting. On the control loop.
  public let isGone: @Sendable (_ within: Duration) async -> Bool

  /// A loss.
  public init(cause: NetworkDeviceError, isGone: @escaping @Sendable (_ within: Duration) async -> Bool) {
    self.cause = cause
    self.isGone = isGone
  }
}
