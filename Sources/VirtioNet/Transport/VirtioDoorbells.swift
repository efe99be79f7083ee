/// The doorbells of one pair. On the pair's loop.
public protocol VirtioDoorbells: AnyObject {
  /// There are new receive buffers.
  func kickReceive()
  /// There are new frames.
  func kickTransmit()
  /// True when the device takes its turns on the pair's loop, and a doorbell is a call.
  var areOnLoop: Bool { get }
  /// The device is lost: whatever it still signals is not heard any more, its errors above all.
  func disconnect()
}

extension VirtioDoorbells {
  /// The device is elsewhere.
  public var areOnLoop: Bool { false }
  /// A device that is never lost.
  public func disconnect() {}
}
