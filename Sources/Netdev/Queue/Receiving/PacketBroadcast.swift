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
    let source = BroadcastSource(self, count: max(0, count), limit: max(1, limit))
    return (0..<max(0, count)).map { BroadcastPackets(source, $0) }
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
  private let index: Int
  /// Those that have been fetched and not handed out, the next one last.
  private let atHand = Mutex<[Packet]>([])

  fileprivate init(_ source: BroadcastSource, _ index: Int) {
    self.source = source
    self.index = index
  }

  deinit {
    let (source, index) = (source, index)
    source.loop.execute { source.assumeIsolated { $0.leave(index) } }
  }

  /// Packets that were dropped because this consumer was too far behind. From any thread.
  public var dropped: Int { source.dropped[index].load() }

  /// An iterator.
  public func makeAsyncIterator() -> Iterator { Iterator(packets: self) }

  private func take() -> Packet? { atHand.withLock { $0.popLast() } }

  /// The next one when these have been fetched, the oldest last. What another iterator has fetched meanwhile comes before them.
  private func take(afterFetching fetched: [Packet]) -> Packet? {
    atHand.withLock { packets in
      packets.insert(contentsOf: fetched, at: 0)
      return packets.popLast()
    }
  }

  /// Fetches packets; elsewhere than on the queue's loop all that are there with one hop. What an iterator has fetched and not handed
  /// out is the next one's.
  public struct Iterator: PacketIterator {
    fileprivate let packets: BroadcastPackets

    /// The next packet that is here.
    public mutating func takePacket() -> Packet? { packets.take() }

    /// The next packet, or nil at the end and when the task is cancelled. Without a deadline.
    nonisolated(nonsending) public mutating func nextPacket() async -> Packet? {
      if let packet = packets.take() { return packet }
      let fetched = await packets.source.next(packets.index)
      return packets.take(afterFetching: fetched)
    }
  }
}

/// The queue's end of a broadcast: one consumer fetches, and what comes is for all of them.
private actor BroadcastSource: LoopActor {
  final class Count: Sendable {
    private let value = Atomic<Int>(0)
    func add(_ count: Int) { value.add(count, ordering: .relaxed) }
    func load() -> Int { value.load(ordering: .relaxed) }
  }

  nonisolated let loop: LoopExecutor
  nonisolated let dropped: [Count]
  private let queue: NetworkQueue
  private let limit: Int
  /// What waits for each, the oldest first; nil for one that has gone.
  private var waiting: [[Packet]?]
  private var isFetching = false
  private var isOver = false
  private let gate = Gate()

  init(_ queue: NetworkQueue, count: Int, limit: Int) {
    self.queue = queue
    self.limit = limit
    loop = queue.loop
    dropped = (0..<count).map { _ in Count() }
    waiting = Array(repeating: [], count: count)
  }

  /// What there is for one of them, the oldest last; empty at the end and when the task is cancelled.
  func next(_ index: Int) async -> [Packet] {
    while true {
      if let packets = waiting[index], !packets.isEmpty {
        waiting[index] = []
        return packets.reversed()
      }
      if isOver || Task.isCancelled { return [] }
      if isFetching { await waitForOthers() } else { await fetch() }
    }
  }

  func leave(_ index: Int) { waiting[index] = nil }

  private func fetch() async {
    isFetching = true
    var packets = queue.packets.makeAsyncIterator()
    let first = await packets.nextPacket()
    isFetching = false
    // Nil is the end, or this task's cancellation alone: then somebody else fetches.
    if first == nil, !Task.isCancelled { isOver = true }
    var next = first
    var left = limit
    while let packet = next {
      add(packet)
      left -= 1
      next = left > 0 ? packets.takePacket() : nil
    }
    gate.openAll()
  }

  private func add(_ packet: Packet) {
    for index in waiting.indices {
      guard var packets = waiting[index].take() else { continue }
      if packets.count >= limit {
        packets.removeFirst()
        dropped[index].add(1)
      }
      packets.append(packet)
      waiting[index] = packets
    }
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
