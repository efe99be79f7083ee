// The notification mechanism itself: for programs that count releases.
extension NetworkQueue {
  /// What the device has given back, when it has given something back.
  public struct ReleaseEvent: Sendable, Hashable {
    /// Frames whose buffers the device has released since the queue was opened.
    public let released: UInt64
    /// Frames that failed since then.
    public let failed: UInt64
    /// Frames that the device holds now.
    public let inFlight: Int
  }

  /// An event whenever the device has released buffers: several releases in one turn of the loop are one event, and events
  /// that nobody waited for are one too. It ends with the queue. Any number of tasks may iterate, from anywhere.
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

    /// An iterator that sees releases from the next one on.
    public func makeAsyncIterator() -> Iterator { Iterator(queue: queue) }

    /// Waits for releases.
    public struct Iterator: AsyncIteratorProtocol {
      fileprivate let queue: NetworkQueue
      private var seen: UInt64?

      fileprivate init(queue: NetworkQueue) { self.queue = queue }

      /// The next event, or nil at the end or when the task is cancelled. Without a deadline.
      public mutating func next(isolation actor: isolated (any Actor)? = #isolation) async -> ReleaseEvent? {
        let event = await queue.nextRelease(after: seen)
        seen = event?.released
        return event
      }
    }
  }

  private func nextRelease(after seen: UInt64?) async -> ReleaseEvent? {
    if Task.isCancelled { return nil }
    if let seen, turn.statistics.packetsReleased > seen { return turn.releaseEvent }
    if turn.isFinished { return nil }
    let waiter = turn.waiters.take(.event)
    turn.watchers.append(waiter)
    turn.interestChanged()
    let outcome = await wait(waiter)
    if case .granted = outcome { return turn.releaseEvent }
    return nil
  }
}

extension QueueTurn {
  var releaseEvent: NetworkQueue.ReleaseEvent {
    NetworkQueue.ReleaseEvent(
      released: statistics.packetsReleased, failed: statistics.packetsFailed, inFlight: unsafe frames.pointee.inFlight)
  }
}
