/// The doorbells of one pair. On the pair's loop.
public protocol VirtioDoorbells: AnyObject {
  /// There are new receive buffers.
  func kickReceive()
  /// There are new frames.
  func kickTransmit()
  /// The device is lost: whatever it still signals is not heard any more, its errors above all.
  func disconnect()
}

extension VirtioDoorbells {
  /// A device that is never lost.
  public func disconnect() {}
}
