internal import CNetdevSystem
internal import LibeventConcurrency

/// Frames that fail, and buffers that come back otherwise than by a driver's bursts.
extension QueueTurn {
  /// How far a frame had come that fails, and with that what becomes of it.
  enum FailedFrame {
    /// It was never published.
    case accepted
    /// The device has had it, and touches it no more.
    case published
    /// The device may still read it: the buffer is lost.
    case quarantined
  }

  /// A frame will not be released: it is counted, its buffer is free unless the device may still touch it, and whoever waits for it
  /// is told.
  func fail(_ entry: FrameEntry, _ how: FailedFrame, _ error: NetworkDeviceError) {
    #if Testing
    if entry.cookie == 0, unsafe netdev_fault_is_planted("untold-end") { return endFlight(entry) }
    #endif
    statistics.packetsFailed &+= 1
    if how != .accepted {
      unsafe frames.pointee.inFlight -= 1
      statistics.failedInFlight &+= 1
    }
    if how == .quarantined { statistics.quarantined &+= 1 } else { endFlight(entry) }
    if entry.cookie != 0 { settleFailed(entry.cookie, error) }
  }

  /// Packets that were not accepted yet will not be sent: they are counted. They hold their buffers themselves, and who waits for
  /// them is told by whoever calls this.
  func noteFailed(_ count: Int = 1) { statistics.packetsFailed &+= UInt64(count) }

  /// A driver whose device was lost gives up a published frame.
  func failInFlight(_ entry: FrameEntry, _ error: NetworkDeviceError) {
    fail(entry, .published, error)
    loop.requestTurn()
  }

  /// A posted buffer is free.
  func takeBack(_ slot: UInt32) {
    releaseBuffer(slot)
    loop.requestTurn()
  }
}
