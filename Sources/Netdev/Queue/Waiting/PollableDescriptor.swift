internal import CNetdevSystem
internal import LibeventConcurrency

// For event loops that are not ours: a descriptor that they can watch.
extension NetworkQueue {
  /// A descriptor for event loops that are not ours (`poll`, epoll, libevent, a Dispatch source): it becomes readable when
  /// frames have come in, when buffers have been released or frames have failed, and when the queue ends.
  ///
  /// Whoever watches it reads its eight bytes, then takes what there is (`receiveBurstIfAny`) until there is nothing more:
  /// it becomes readable again only for what comes after that. The queue owns the descriptor and closes it when it goes.
  ///
  /// - Throws: `system` when the process has no descriptor left; `closed` or the cause when the queue has ended.
  public var pollableDescriptor: CInt {
    get throws(NetworkDeviceError) {
      if let pollable = turn.pollable { return pollable.descriptor }
      if let end = turn.end { throw end }
      let descriptor = netdev_eventfd_create()
      guard descriptor >= 0 else {
        throw NetworkDeviceError(
          .system, "pollableDescriptor", offered: "no eventfd: \(ErrorNumber(descriptor))",
          advice: "raise the limit of open files")
      }
      turn.pollable = PollableState(descriptor: descriptor)
      turn.interestChanged()
      return descriptor
    }
  }
}

/// The descriptor that foreign loops watch, and what they have been told.
struct PollableState {
  let descriptor: CInt
  var received: UInt64 = 0
  /// Released or failed.
  var settled: UInt64 = 0
}

extension QueueTurn {
  /// At the end of a turn: tells whoever polls what is new.
  func signalPollable() {
    guard var pollable else { return }
    if readyCount == 0 { takeReceived() }
    let settled = releaseEvent.settled
    guard
      (readyCount > 0 && pollable.received != statistics.packetsReceived)
        || pollable.settled != settled
    else { return }
    pollable.received = statistics.packetsReceived
    pollable.settled = settled
    self.pollable = pollable
    _ = netdev_eventfd_signal(pollable.descriptor)
  }
}
