/// The doorbell of one virtqueue. On the queue's loop.
public protocol VirtioDoorbell: AnyObject {
  /// There is something new on the ring: buffers to receive into, or frames.
  func kick()
  /// True when the device takes its turns on the pair's loop, and the doorbell is a call.
  var isOnLoop: Bool { get }
  /// The device is lost: whatever it still signals about this queue is not heard any more, its errors above all.
  func disconnect()
}

extension VirtioDoorbell {
  /// The device is elsewhere.
  public var isOnLoop: Bool { false }
  /// A device that is never lost.
  public func disconnect() {}
}
