internal import CNetdevSystem
internal import LibeventConcurrency

// Reception: a sequence of packets, and bursts.
extension NetworkQueue {
  /// Frames as they arrive, until the queue ends. Consumers compete, first come first served; frames that were taken from
  /// the device but not fetched belong to the queue: leaving a loop loses none.
  ///
  /// Elsewhere than on the queue's loop a burst is fetched ahead, and goes back to the queue with the iterator. Code at top
  /// level keeps the iterator of a loop until the program ends, that is Swift's way: put a loop that you leave in a function.
  ///
  /// Deadline: none; frames come when the device has some. Cancellation ends a wait at once, and an iteration that finds frames
  /// all the time in the loop's next turn; the queue's end ends both.
  public nonisolated var packets: Packets { Packets(queue: self) }

  /// An asynchronous sequence of received packets; `for await` fetches them. It ends when the queue ends (the cause is
  /// thrown by `NetworkDevice.run` and `closed()`) or when the iterating task is cancelled.
  public struct Packets: AsyncSequence, Sendable {
    /// One frame.
    public typealias Element = Packet
    /// The sequence only ends; why, `NetworkDevice.run` and `closed()` say.
    public typealias Failure = Never
    @usableFromInline let queue: NetworkQueue

    @usableFromInline init(queue: NetworkQueue) { self.queue = queue }

    /// An iterator; any number may be in use.
    @inlinable public func makeAsyncIterator() -> Iterator { Iterator(queue: queue) }

    /// Fetches packets one by one: on the queue's loop as they come, elsewhere a burst ahead.
    public struct Iterator: PacketIterator {
      @usableFromInline let queue: NetworkQueue
      /// The queue's loop as its thread knows it, or a loop that there is none of while packets have been fetched ahead: one
      /// comparison tells whether what the queue has at hand is next.
      @usableFromInline var loopIdentity: UInt
      /// What has been fetched ahead, outside the loop.
      private var ahead: PacketsAhead?

      @usableFromInline init(queue: NetworkQueue) {
        self.queue = queue
        loopIdentity = queue.loopIdentity
      }

      /// A packet that is at hand.
      @inlinable public mutating func takePacket() -> Packet? {
        guard QueueFrames.isHere(loopIdentity) else { return takeAhead() }
        let frames = unsafe queue.frames
        return unsafe QueueFrames.takeReady(frames) ?? QueueFrames.pumpAndTake(frames)
      }

      /// What has been fetched ahead comes first; if the iterator is on the loop by now, the rest follows from there.
      @usableFromInline @inline(never) mutating func takeAhead() -> Packet? {
        if let packet = ahead?.take() { return packet }
        ahead = nil
        loopIdentity = queue.loopIdentity
        return QueueFrames.isHere(loopIdentity) ? takePacket() : nil
      }

      /// The next packet, or nil at the end and when the task is cancelled. Without a deadline.
      @inlinable nonisolated(nonsending) public mutating func nextPacket() async -> Packet? {
        if let packet = takePacket() { return packet }
        if QueueFrames.isHere(queue.loopIdentity) { return await queue.nextSlowly() }
        return await fetchAhead()
      }

      /// The next packet, or nil at the end and when the task is cancelled. Without a deadline.
      @inlinable nonisolated(nonsending) public mutating func next() async -> Packet? {
        if let packet = takePacket() { return packet }
        if QueueFrames.isHere(queue.loopIdentity) { return await queue.nextSlowly() }
        return await fetchAhead()
      }

      /// The next packet, or nil at the end and when the task is cancelled; what `for await` calls. Without a deadline.
      @inlinable nonisolated(nonsending) public mutating func next(isolation actor: (any Actor)?) async -> Packet? {
        if let packet = takePacket() { return packet }
        if QueueFrames.isHere(queue.loopIdentity) { return await queue.nextSlowly() }
        return await fetchAhead()
      }

      @usableFromInline nonisolated(nonsending) mutating func fetchAhead() async -> Packet? {
        let ahead = ahead ?? PacketsAhead(queue: queue)
        self.ahead = ahead
        loopIdentity = .max
        return await ahead.fetch()
      }
    }
  }

  /// The packet of a slot that the queue owns: the object that travels with it, or a new one.
  @inlinable nonisolated func packet(_ entry: FrameEntry) -> Packet {
    unsafe Packet(owning: records.advanced(by: Int(entry.slot)))
  }

  @usableFromInline func nextSlowly() async -> Packet? {
    guard let outcome = await fetch(.packet) else { return nil }
    guard case .frame(let entry) = outcome else { return nil }
    return packet(entry)
  }

  /// Waits for frames: one, or a burst. Nil at the end or when the task is cancelled, and when the time is over that there is.
  func fetch(_ wish: Waiter.Wish, within limit: Duration? = nil) async -> Waiter.Outcome? {
    turn.takeFromOutside()
    if turn.consumers.isEmpty, turn.isOpen {
      // A loop body that never suspends must still let its turn end: after a budget of frames it goes on in the next one.
      if turn.readyCount == 0, turn.turnIsSpent { await waitForNextTurn() }
    }
    if turn.consumers.isEmpty, turn.isOpen {
      if turn.readyCount == 0 { _ = turn.pump() }
      if turn.readyCount > 0 {
        if netdev_current_task_is_cancelled() { return nil }
        switch wish {
        case .burst, .ahead: return unsafe .block(turn.takeReadyBlock())
        default: return .frame(turn.takeReady())
        }
      }
    }
    if turn.end != nil || Task.isCancelled { return nil }
    let waiter = turn.waiters.take(wish)
    var timer: LoopTimer?
    if let limit {
      do throws(LoopError) { timer = try turn.timer(of: waiter) { $0.consumers.remove($1) } } catch {
        // A wait without the end that it was to have is none.
        turn.waiters.putBack(waiter)
        return nil
      }
      timer?.schedule(after: limit)
    }
    turn.consumers.append(waiter)
    turn.interestChanged()
    let outcome = await wait(waiter)
    timer?.cancel()
    if case .failed = outcome { return nil }
    return outcome
  }
}
