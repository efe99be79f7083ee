/// Sees frames as they pass between a back-end's queues and the driver: to prove which flow took which queue, or to trace.
///
/// A back-end without one does nothing for it, not even a copy.
public protocol FrameObserver: AnyObject, Sendable {
  /// A frame has passed. Called on the queue's loop; several queues call at the same time.
  ///
  /// - Parameters:
  ///   - queue: the back-end's queue, from 0.
  ///   - direction: which way.
  ///   - length: the frame's length in bytes.
  ///   - prefix: a private copy of its first bytes, 64 at most.
  func observe(queue: Int, direction: FrameDirection, length: Int, prefix: RawSpan)
}

/// Which way a frame goes.
public enum FrameDirection: Sendable, Hashable {
  /// From the driver to what is behind the back-end.
  case transmitted
  /// From what is behind the back-end to the driver.
  case received
}
