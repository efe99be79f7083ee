public import LibeventConcurrency

/// A driver's side of its device's control plane: the loop on which everything of it happens, and the way to say that
/// something wants to be looked at.
///
/// A device's life is one task on this loop, which calls the driver's steps one after the other. What reaches the driver in
/// between (a connection that ends, a process that exits, a configuration that changes) it notes for itself and calls
/// `requestAttention`; the life then calls `attend`, between two steps and never in the middle of one. Drivers wait by this
/// loop's clock (`LoopPromise`, `LoopExecutor.sleep`), and stop waiting when their task is cancelled.
public final class DeviceControl: Sendable {
  /// The control loop. Devices opened together share it.
  public let loop: LoopExecutor
  private let link: LinkMonitor
  private let announcements: Announcements
  private weak let life: DeviceLife?

  init(loop: LoopExecutor, link: LinkMonitor, announcements: Announcements, life: DeviceLife) {
    self.loop = loop
    self.link = link
    self.announcements = announcements
    self.life = life
  }

  /// A control plane without a device above it: for code that drives a driver by itself, such as a test.
  public init(loop: LoopExecutor) {
    self.loop = loop
    link = LinkMonitor { _ in }
    announcements = Announcements()
    life = nil
  }

  /// Has `attend` called when the present step is over; however often it is asked meanwhile, once. From any thread.
  public func requestAttention() { life?.post(.attention) }

  /// What the device says of its link; up until it says otherwise. From any thread.
  public func noteLink(_ change: LinkChange) { link.note(change) }

  /// Whether the device wants its program to announce itself; not until it says so. From any thread.
  public func noteAnnouncement(isWanted: Bool) { announcements.note(isWanted: isWanted) }
}
