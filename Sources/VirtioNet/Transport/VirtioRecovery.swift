/// What to do when a device is lost: look for it again, and go on.
public struct VirtioRecovery: Sendable, Hashable {
  /// What becomes of frames that the lost device had not released.
  public enum InFlight: Sendable, Hashable {
    /// They are submitted again, before anything newer: each at least once on the wire, perhaps twice.
    case resubmit
    /// Their sends fail with `frameLost`, which names the cause of the loss: each at most once on the wire.
    case fail
  }

  /// What becomes of frames in flight.
  public var inFlight = InFlight.resubmit
  /// Time between the first two attempts to reach the device; it doubles from one to the next, and goes on doubling when a
  /// device that came back is lost again within `longestDelay`.
  public var firstDelay = Duration.milliseconds(10)
  /// The longest such time.
  public var longestDelay = Duration.seconds(1)

  /// Submit again, try for as long as it takes.
  public init() {}
}
