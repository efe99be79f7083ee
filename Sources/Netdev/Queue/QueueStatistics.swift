/// What one queue pair has done since it was opened.
public struct QueueStatistics: Sendable, Hashable {
  /// Frames taken from the device.
  public internal(set) var packetsReceived: UInt64 = 0
  /// Their bytes.
  public var bytesReceived: UInt64 { driver.bytesReceived }
  /// Frames published to the device.
  public internal(set) var packetsSubmitted: UInt64 = 0
  /// Frames whose buffers the device has released.
  public internal(set) var packetsReleased: UInt64 = 0
  /// Frames that failed after they were submitted: the device was reset before it released them.
  public internal(set) var packetsFailed: UInt64 = 0
  /// Times a sender found the ring full and had to wait.
  public internal(set) var ringFull: UInt64 = 0
  /// Packets submitted elsewhere than on the queue's loop.
  public internal(set) var submittedOutside: UInt64 = 0
  /// How often the loop was woken for those.
  public internal(set) var outsideWakeups: UInt64 = 0
  /// Turns in which reception wanted buffers and the pool had none.
  public internal(set) var starved: UInt64 = 0
  /// Packets copied because their pool is not this device's, or lay on the heap.
  public internal(set) var copiedToSend: UInt64 = 0
  /// Buffers whose release was never confirmed; they stay mapped for good.
  public internal(set) var quarantined: UInt64 = 0
  /// Turns that did something for this queue.
  public internal(set) var activeTurns: UInt64 = 0
  /// What the driver counted.
  public internal(set) var driver = QueueDriverStatistics()

  @usableFromInline init() {}
}
