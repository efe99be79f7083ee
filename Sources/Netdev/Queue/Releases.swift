internal import CNetdevSystem
internal import LibeventConcurrency

// The notification mechanism itself: for programs that count releases, and for event loops that are not ours.
extension NetworkQueue {
  /// What the device has given back, when it has given something back.
  public struct ReleaseEvent: Sendable, Hashable {
    /// Frames whose buffers the device has released since the queue was opened.
    public let released: UInt64
    /// Frames that failed since then: ``QueueStatistics/packetsFailed``.
    public let failed: UInt64
    /// Frames that the device holds now.
    public let inFlight: Int

    /// Frames of which nothing more will be heard: who has seen as many has seen all.
    fileprivate var settled: UInt64 { released &+ failed }
  }

  /// An event whenever the device has released buffers, or frames that were accepted have failed: several in one turn of the loop
  /// are one event, and events that nobody waited for are one too. It ends with the queue; what failed with it is told before. Any
  /// number of tasks may iterate, from anywhere.
  ///
  /// Deadline: none. Cancellation ends the iteration at once.
  public nonisolated var releases: Releases { Releases(queue: self) }

  /// The sequence of `releases`.
  public struct Releases: AsyncSequence, Sendable {
    /// What has been released.
    public typealias Element = ReleaseEvent
    /// The sequence only ends.
    public typealias Failure = Never
    fileprivate let queue: NetworkQueue

    /// An iterator that sees events from the next one on.
    public func makeAsyncIterator() -> Iterator { Iterator(queue: queue) }

    /// Waits for releases.
    public struct Iterator: AsyncIteratorProtocol {
      fileprivate let queue: NetworkQueue
      private var seen: UInt64?

      fileprivate init(queue: NetworkQueue) { self.queue = queue }

      /// The next event, or nil at the end or when the task is cancelled. Without a deadline.
      public mutating func next(isolation actor: isolated (any Actor)? = #isolation) async -> ReleaseEvent? {
        let event = await queue.nextRelease(after: seen)
        seen = event?.settled
        return event
      }
    }
  }

  private func nextRelease(after seen: UInt64?) async -> ReleaseEvent? {
    guard let core = unsafe core, !Task.isCancelled else { return nil }
    let seen = seen ?? core.releaseEvent.settled
    while core.releaseEvent.settled == seen {
      guard !core.isFinished else { return nil }
      let waiter = core.waiters.take(.event)
      core.watchers.append(waiter)
      core.interestChanged()
      // What ends the wait otherwise is the queue, of which something may be left to tell, or the task.
      if case .failed = await wait(waiter, core), Task.isCancelled { return nil }
    }
    return core.releaseEvent
  }

  /// Takes a burst of frames that are at hand; nil when there are none, at once.
  public func receiveBurstIfAny() -> sending PacketBurst? {
    guard let core = unsafe core else { return nil }
    core.takeFromOutside()
    return takeReadyBurst()
  }

  /// A descriptor for event loops that are not ours (`poll`, epoll, libevent, a Dispatch source): it becomes readable when
  /// frames have come in, when buffers have been released or frames have failed, and when the queue ends.
  ///
  /// Whoever watches it reads its eight bytes, then takes what there is (`receiveBurstIfAny`) until there is nothing more:
  /// it becomes readable again only for what comes after that. The queue owns the descriptor and closes it when it goes.
  ///
  /// - Throws: `system` when the process has no descriptor left; `closed` or the cause when the queue has ended.
  public var pollableDescriptor: CInt {
    get throws(NetworkDeviceError) {
      guard let core = unsafe core else { throw NetworkDeviceError(.closed, "pollableDescriptor") }
      if let pollable = core.pollable { return pollable.descriptor }
      if let end = core.end { throw end }
      let descriptor = netdev_eventfd_create()
      guard descriptor >= 0 else {
        throw NetworkDeviceError(
          .system, "pollableDescriptor", offered: "no eventfd: \(ErrorNumber(descriptor))",
          advice: "raise the limit of open files")
      }
      core.pollable = PollableState(descriptor: descriptor)
      core.interestChanged()
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

extension QueueCore {
  /// As it is now.
  fileprivate var releaseEvent: NetworkQueue.ReleaseEvent {
    NetworkQueue.ReleaseEvent(
      released: statistics.packetsReleased, failed: failed, inFlight: unsafe state.pointee.inFlight)
  }

  /// Frames that failed, on the loop and elsewhere.
  private var failed: UInt64 { statistics.packetsFailed &+ inlet.refusals.failed }

  /// At the end of a turn in which nothing was released: tells whoever waits for releases that frames have failed.
  func tellOfFailures() {
    let failed = failed
    guard failed != failuresTold else { return }
    failuresTold = failed
    tellWatchers()
  }

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
