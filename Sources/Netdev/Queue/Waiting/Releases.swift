// The notification mechanism itself: for programs that count releases.
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
    var settled: UInt64 { released &+ failed }
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
    guard !Task.isCancelled else { return nil }
    let seen = seen ?? turn.releaseEvent.settled
    while turn.releaseEvent.settled == seen {
      guard !turn.isFinished else { return nil }
      let waiter = turn.waiters.take(.event)
      turn.watchers.append(waiter)
      turn.interestChanged()
      // What ends the wait otherwise is the queue, of which something may be left to tell, or the task.
      if case .failed = await wait(waiter), Task.isCancelled { return nil }
    }
    return turn.releaseEvent
  }
}

extension QueueTurn {
  /// As it is now.
  var releaseEvent: NetworkQueue.ReleaseEvent {
    NetworkQueue.ReleaseEvent(
      released: statistics.packetsReleased, failed: failed, inFlight: unsafe frames.pointee.inFlight)
  }

  /// Frames that failed, on the loop and elsewhere.
  private var failed: UInt64 { statistics.packetsFailed &+ mailbox.refusals.failed }

  /// At the end of a turn: tells whoever still waits for releases that frames have failed.
  func tellOfFailures() {
    let failed = failed
    guard failed != failuresTold else { return }
    failuresTold = failed
    tellWatchers()
  }
}
