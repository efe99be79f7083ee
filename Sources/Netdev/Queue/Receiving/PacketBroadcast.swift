internal import LibeventConcurrency
internal import Synchronization

// Consumers of a queue compete, and that is what a server wants. A program that looks at its traffic in several ways wants every
// packet in each of them.
extension NetworkQueue {
  /// Sequences of which each has every packet that is received from here on.
  ///
  /// ```swift
  /// let copies = queue.broadcast(to: 2)
  /// async let types = countTypes(copies[0])
  /// async let talkers = countTalkers(copies[1])
  /// ```
  ///
  /// The packets are shared, not copied: who changes one changes a copy. The queue is asked for more as soon as one of them has
  /// nothing left, so the fastest consumer goes ahead of the others; one that is more than `limit` packets behind loses the
  /// oldest of those, and its sequence counts them. What such packets hold are buffers of the pool: room for `count` times `limit`
  /// of them belongs into ``NetworkDevice/Configuration/keptPackets``.
  ///
  /// Whoever else receives from the queue competes with all of them together.
  ///
  /// Deadline: none; frames come when the device has some. Cancellation ends an iteration at once, and no other one's; the queue's end
  /// ends all of them.
  ///
  /// - Parameters:
  ///   - count: how many sequences.
  ///   - limit: packets that each may be behind.
  public nonisolated func broadcast(to count: Int, keeping limit: Int = 256) -> [BroadcastPackets] {
    let consumers = (0..<max(0, count)).map { _ in UnseenPackets() }
    let source = BroadcastSource(self, consumers, limit: max(1, limit))
    return consumers.map { BroadcastPackets(source, $0) }
  }
}

/// Every packet of a queue, for one of several consumers: see ``NetworkQueue/broadcast(to:keeping:)``.
///
/// It is for one consumer; iterators of the same sequence share its packets. When the sequence goes, nothing is kept for it any more.
public final class BroadcastPackets: AsyncSequence, Sendable {
  /// One frame.
  public typealias Element = Packet
  /// The sequence only ends, with the queue.
  public typealias Failure = Never
  private let source: BroadcastSource
  private let unseen: UnseenPackets

  fileprivate init(_ source: BroadcastSource, _ unseen: UnseenPackets) {
    self.source = source
    self.unseen = unseen
  }

  deinit { unseen.end() }

  /// Packets that were dropped because this consumer was too far behind. From any thread.
  public var dropped: Int { unseen.dropped }

  /// An iterator.
  public func makeAsyncIterator() -> Iterator { Iterator(packets: self) }

  /// Fetches packets; elsewhere than on the queue's loop all that are there with one hop. What an iterator has not handed out is the next
  /// one's, and that of any other one that waits.
  public struct Iterator: PacketIterator {
    fileprivate let packets: BroadcastPackets

    /// The next packet that is here.
    public mutating func takePacket() -> Packet? { packets.unseen.take() }

    /// The next packet, or nil at the end and when the task is cancelled. Without a deadline.
    nonisolated(nonsending) public mutating func nextPacket() async -> Packet? {
      if let packet = packets.unseen.take() { return packet }
      return await packets.source.next(for: packets.unseen)
    }
  }
}

/// The packets that one consumer has not seen. The queue's end of the broadcast adds to them, on its loop, and whoever iterates takes them,
/// wherever it is.
private final class UnseenPackets: Sendable {
  private struct State {
    /// The next one last.
    var next: [Packet] = []
    /// What came after those, the latest last.
    var later: [Packet] = []
    var dropped = 0
    var isWanted = true

    mutating func take() -> Packet? {
      if next.isEmpty {
        next = later.reversed()
        later.removeAll(keepingCapacity: true)
      }
      return next.popLast()
    }
  }

  private let state = Mutex(State())

  /// Packets that were dropped so far.
  var dropped: Int { state.withLock { $0.dropped } }

  /// The oldest.
  func take() -> Packet? { state.withLock { $0.take() } }

  /// Keeps `limit` of them, the latest.
  func add(_ packets: [Packet], keeping limit: Int) {
    state.withLock { state in
      guard state.isWanted else { return }
      state.later += packets
      while state.next.count + state.later.count > limit {
        _ = state.take()
        state.dropped += 1
      }
    }
  }

  /// The consumer has gone: nothing is kept for it any more.
  func end() {
    state.withLock { state in
      state.isWanted = false
      state.next = []
      state.later = []
    }
  }
}

/// The queue's end of a broadcast: one consumer fetches, and what comes is for all of them.
private actor BroadcastSource: LoopActor {
  nonisolated let loop: LoopExecutor
  private let queue: NetworkQueue
  private let consumers: [UnseenPackets]
  private let limit: Int
  private var isFetching = false
  private var isOver = false
  /// The turn in which packets came last.
  private var fetchedIn: UInt64 = 0
  private let gate = Gate()

  init(_ queue: NetworkQueue, _ consumers: [UnseenPackets], limit: Int) {
    self.queue = queue
    self.consumers = consumers
    self.limit = limit
    loop = queue.loop
  }

  /// The next one for one of them; nil at the end and when the task is cancelled.
  func next(for consumer: UnseenPackets) async -> Packet? {
    var hasLetTurnEnd = consumers.count == 1
    while true {
      if let packet = consumer.take() { return packet }
      if isOver || Task.isCancelled { return nil }
      if isFetching {
        await waitForOthers()
      } else if fetchedIn == loop.turn, !hasLetTurnEnd {
        // Who waited for the last ones has them before more are fetched.
        hasLetTurnEnd = true
        await queue.waitForNextTurn()
      } else {
        await fetch()
      }
    }
  }

  private func fetch() async {
    isFetching = true
    var packets = queue.packets.makeAsyncIterator()
    let first = await packets.nextPacket()
    isFetching = false
    // Nil is the end, or this task's cancellation alone: then somebody else fetches.
    if first == nil, !Task.isCancelled { isOver = true }
    var next = first
    var fetched: [Packet] = []
    while let packet = next {
      fetched.append(packet)
      next = fetched.count < limit ? packets.takePacket() : nil
    }
    if !fetched.isEmpty { for consumer in consumers { consumer.add(fetched, keeping: limit) } }
    fetchedIn = loop.turn
    gate.openAll()
  }

  private func waitForOthers() async {
    await withTaskCancellationHandler {
      await self.park()
    } onCancel: {
      loop.execute { self.assumeIsolated { $0.gate.openAll() } }
    }
  }

  private func park() async { if isFetching, !Task.isCancelled { await gate.pass() } }
}
