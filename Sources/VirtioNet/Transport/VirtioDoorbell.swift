/// The doorbell of one virtqueue. On the queue's loop.
public protocol VirtioDoorbell: AnyObject {
  /// There is something new on the ring: buffers to receive into, or frames.
  func kick()
  /// The device is lost: whatever it still signals about this queue is not heard any more, its errors above all.
  func disconnect()
}

extension VirtioDoorbell {
  /// A device that is never lost.
  public func disconnect() {}
}
