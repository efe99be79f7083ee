/// What happens to a queue pair beside its frames: what its port tells, and what the engine sees.
public enum PortEvent: Sendable, Hashable {
  /// What is behind the back-end went down or came up. While it is down frames are dropped, and counted.
  case link(isUp: Bool)
  /// What is behind the back-end is gone, or refuses for good: no frame passes any more, and the device needs a reset.
  case lost(BackendError)
  /// The largest frame without its Ethernet header is another now than the device offered, which stays as it was.
  case mtuChanged(to: Int)
  /// Others hold queues of the same interface: so many are open, ours included. Each gets a part of the flows.
  case shared(queues: Int)
  /// The system says nothing of the interface: until it does, frames that it does not take tell what has become of it. Once.
  case unwatched
  /// A frame was dropped for a reason that there had not been on this way.
  case firstDrop(FrameDirection, DropReason)
}
