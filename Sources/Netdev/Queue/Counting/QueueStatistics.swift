public import LibeventConcurrency

/// What one queue pair has done since it was opened, or several together.
///
/// A snapshot: read it from any thread and as often as you like, the queue does not notice. Every number only grows, but for
/// ``sendersWaiting`` and ``QueueDriverStatistics/quarantined``. Frames, turns and times are counted; bytes are those of frames,
/// without net headers.
public struct QueueStatistics: Sendable, Hashable {
  // Numbers alone, in the order in which a queue stores them; what is not one comes last. `QueueCounters` has them from here.

  /// Frames published to the device.
  public internal(set) var packetsSubmitted: UInt64 = 0
  /// Frames taken from the device.
  public internal(set) var packetsReceived: UInt64 = 0
  /// Frames whose buffers the device has released.
  public internal(set) var packetsReleased: UInt64 = 0
  /// Frames that failed after they were submitted: the device was reset before it released them, or they were found to be
  /// too long for it.
  public internal(set) var packetsFailed: UInt64 = 0
  /// Times a sender found the ring full and had to wait.
  public internal(set) var ringFull: UInt64 = 0
  /// Times a sender found no buffers for its packet in the pool and had to wait.
  public internal(set) var poolEmpty: UInt64 = 0
  /// Times the device was short of buffers to receive into: turns in which the pool had none for it, and refills before which
  /// it had used up all it had (``QueueDriverStatistics/receiveRingEmpty``), because nobody had taken what was received.
  public internal(set) var starved: UInt64 = 0
  /// Packets copied because their pool is not this device's, or lay on the heap.
  public internal(set) var copiedToSend: UInt64 = 0
  /// Packets in buffers that were at hand at this queue, received by it or made on its loop, that were copied there to be changed,
  /// because somebody else held them, or because they lay in several buffers. ``PacketPool/copies`` counts all of the pool's, wherever they were made.
  public internal(set) var copiedToChange: UInt64 = 0
  /// Buffers whose release was never confirmed; they stay mapped for good.
  public internal(set) var quarantined: UInt64 = 0
  /// Received frames dropped because the queue ended before anybody had asked for them.
  public internal(set) var droppedAtEnd: UInt64 = 0
  /// Packets that `trySubmit` gave back because there was no room for them.
  public internal(set) var packetsRefused: UInt64 = 0
  /// Of the frames published, those that went by the ring of another pair, which counts them too: this one was not in use.
  public internal(set) var packetsMoved: UInt64 = 0
  /// Senders that wait now, for room in the ring or for buffers.
  public internal(set) var sendersWaiting: UInt64 = 0
  /// Nanoseconds: ``senderWait``.
  var senderWaitTime: UInt64 = 0
  /// Bursts of received frames or released buffers that the queue found while interrupts were off: each spared the device an
  /// interrupt.
  public internal(set) var interruptsSuppressed: UInt64 = 0
  /// Turns that did something for this queue.
  public internal(set) var activeTurns: UInt64 = 0
  /// Turns of the queue's loop that a job held longer than the device's stall bound.
  public internal(set) var loopStalls: UInt64 = 0
  /// Packets submitted elsewhere than on the queue's loop.
  public internal(set) var submittedOutside: UInt64 = 0
  /// How often the loop was woken for those.
  public internal(set) var outsideWakeups: UInt64 = 0
  /// What the driver counted: doorbells and interrupts among it. Read elsewhere than on the queue's loop, this is as of the
  /// end of its last turn.
  public internal(set) var driver = QueueDriverStatistics()

  /// How long frames were with the device, publication to release: a sample of them.
  public internal(set) var residency = ResidencyHistogram()
  private var reading = Reading()

  @usableFromInline init() {}

  /// When this was read, by the clock of the queue's loop.
  public internal(set) var time: LoopClock.Instant {
    get { reading.time }
    set { reading.time = newValue }
  }
  /// How long senders have waited for room or buffers, all of those together that have gone on since.
  public var senderWait: Duration { .nanoseconds(Int64(clamping: senderWaitTime)) }

  /// Bytes of the frames taken from the device.
  public var bytesReceived: UInt64 { driver.bytesReceived }
  /// Bytes of the frames published to the device.
  public var bytesSubmitted: UInt64 { driver.bytesSubmitted }

  /// Adds what another queue has done.
  public static func += (sum: inout QueueStatistics, other: QueueStatistics) {
    var other = other
    sum.withNumbers { sum in other.withNumbers { other in sum.add(other) } }
    sum.residency += other.residency
    sum.time = max(sum.time, other.time)
  }
}

/// When something was read: two readings that found the same are equal.
private struct Reading: Hashable, Sendable {
  var time = LoopClock.Instant(nanoseconds: 0)
  static func == (left: Reading, right: Reading) -> Bool { true }
  func hash(into hasher: inout Hasher) {}
}

extension QueueDriverStatistics {
  /// Adds what the driver of another queue has counted.
  public static func += (sum: inout QueueDriverStatistics, other: QueueDriverStatistics) {
    var other = other
    sum.withNumbers { sum in other.withNumbers { other in sum.add(other) } }
  }
}

// MARK: - All numbers at once

extension QueueStatistics {
  /// Numbers that a queue has, its driver's included.
  static var numberCount: Int {
    (MemoryLayout<QueueStatistics>.offset(of: \.residency) ?? 0) / MemoryLayout<UInt64>.size
  }

  /// The numbers one behind the other, as they lie.
  mutating func withNumbers(_ body: (inout MutableSpan<UInt64>) -> Void) {
    unsafe withUnsafeMutableBytes(of: &self) { bytes in
      // Nothing but 64-bit numbers lies before what is not one.
      var numbers = unsafe MutableSpan<UInt64>(
        _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: bytes[..<(Self.numberCount * MemoryLayout<UInt64>.size)]))
      body(&numbers)
    }
  }
}

extension QueueDriverStatistics {
  /// The numbers one behind the other, as they lie.
  @inline(__always) mutating func withNumbers(_ body: (inout MutableSpan<UInt64>) -> Void) {
    unsafe withUnsafeMutableBytes(of: &self) { bytes in
      // A driver's statistics are nothing but 64-bit numbers.
      var numbers = unsafe MutableSpan<UInt64>(_unsafeBytes: bytes)
      body(&numbers)
    }
  }
}

extension MutableSpan<UInt64> {
  fileprivate mutating func add(_ other: borrowing MutableSpan<UInt64>) {
    for number in indices { self[number] &+= other[number] }
  }

  /// Leaves what has been added to each number since `earlier`.
  mutating func subtract(_ earlier: borrowing MutableSpan<UInt64>) {
    for number in indices { self[number] &-= Swift.min(earlier[number], self[number]) }
  }
}

extension NetworkQueue {
  /// What the queue has done so far. From any thread; the queue does not notice: no job, no lock that it could wait for, no
  /// wake-up of its loop. Still there after the device is closed.
  public nonisolated var statistics: QueueStatistics {
    var statistics = counters.snapshot
    // On the loop the driver itself can be asked.
    if isHere {
      unsafe frames.pointee.withTurn { if !$0.isFinished { statistics.driver = $0.driver.statistics } }
    }
    statistics.time = loop.clock.now
    statistics.loopStalls = loop.statistics.stalls
    let refusals = mailbox.refusals
    statistics.packetsRefused &+= refusals.refused
    statistics.packetsFailed &+= refusals.failed
    statistics.droppedAtEnd &+= mailbox.droppedReturns
    (statistics.submittedOutside, statistics.outsideWakeups) = mailbox.counts
    return statistics
  }
}

extension NetworkDevice {
  /// What each queue pair has done so far, in the order of ``queues``. From any thread; no queue notices.
  public var statistics: [QueueStatistics] { queues.map { $0.statistics } }

  /// What all queue pairs together have done so far. From any thread; no queue notices.
  public var totalStatistics: QueueStatistics {
    var sum = QueueStatistics()
    for queue in queues { sum += queue.statistics }
    return sum
  }
}
