public import LibeventConcurrency

/// What one queue pair has done since it was opened, or several together.
///
/// A snapshot: read it from any thread and as often as you like, the queue does not notice. Every number only grows, but for
/// ``sendersWaiting`` and ``QueueDriverStatistics/quarantined``. Frames, turns and times are counted; bytes are those of frames, without net headers.
public struct QueueStatistics: Sendable, Hashable {
  /// Frames taken from the device.
  public internal(set) var packetsReceived: UInt64 = 0
  /// Their bytes.
  public var bytesReceived: UInt64 { driver.bytesReceived }
  /// Frames published to the device.
  public internal(set) var packetsSubmitted: UInt64 = 0
  /// Their bytes.
  public var bytesSubmitted: UInt64 { driver.bytesSubmitted }
  /// Frames whose buffers the device has released.
  public internal(set) var packetsReleased: UInt64 = 0
  /// Frames that failed after they were submitted: the device was reset before it released them, or they were found to be
  /// too long for it.
  public internal(set) var packetsFailed: UInt64 = 0
  /// Received frames dropped because the queue ended before anybody had asked for them.
  public internal(set) var droppedAtEnd: UInt64 = 0
  /// Packets that `trySubmit` gave back because there was no room for them.
  public internal(set) var packetsRefused: UInt64 = 0
  /// Senders that wait now, for room in the ring or for buffers.
  public internal(set) var sendersWaiting: UInt64 = 0
  /// How long senders have waited for that, all of those together that have gone on since.
  public internal(set) var senderWait = Duration.zero
  /// Times a sender found the ring full and had to wait.
  public internal(set) var ringFull: UInt64 = 0
  /// Times a sender found no buffers for its packet in the pool and had to wait.
  public internal(set) var poolEmpty: UInt64 = 0
  /// Packets submitted elsewhere than on the queue's loop.
  public internal(set) var submittedOutside: UInt64 = 0
  /// How often the loop was woken for those.
  public internal(set) var outsideWakeups: UInt64 = 0
  /// Times the device was short of buffers to receive into: turns in which the pool had none for it, and refills before which
  /// it had used up all it had (``QueueDriverStatistics/receiveRingEmpty``), because nobody had taken what was received.
  public internal(set) var starved: UInt64 = 0
  /// Packets copied because their pool is not this device's, or lay on the heap.
  public internal(set) var copiedToSend: UInt64 = 0
  /// Packets that this queue received and that were copied to be changed, on its loop, because somebody else held them, or because
  /// they lay in several buffers. ``PacketPool/copies`` counts all of the pool's, wherever they were made.
  public internal(set) var copiedToChange: UInt64 = 0
  /// Buffers whose release was never confirmed; they stay mapped for good.
  public internal(set) var quarantined: UInt64 = 0
  /// How long frames were with the device, publication to release: a sample of them.
  public internal(set) var residency = ResidencyHistogram()
  /// Bursts of received frames or released buffers that the queue found while interrupts were off: each spared the device an
  /// interrupt.
  public internal(set) var interruptsSuppressed: UInt64 = 0
  /// Turns of the queue's loop that a job held longer than the device's stall bound.
  public internal(set) var loopStalls: UInt64 = 0
  /// Turns that did something for this queue.
  public internal(set) var activeTurns: UInt64 = 0
  /// What the driver counted: doorbells and interrupts among it. Read elsewhere than on the queue's loop, this is as of the
  /// end of its last turn.
  public internal(set) var driver = QueueDriverStatistics()

  /// When this was read, by the clock of the queue's loop.
  public internal(set) var time: LoopClock.Instant {
    get { reading.time }
    set { reading.time = newValue }
  }
  private var reading = Reading()

  @usableFromInline init() {}

  /// Adds what another queue has done.
  public static func += (sum: inout QueueStatistics, other: QueueStatistics) {
    sum.packetsReceived &+= other.packetsReceived
    sum.packetsSubmitted &+= other.packetsSubmitted
    sum.packetsReleased &+= other.packetsReleased
    sum.packetsFailed &+= other.packetsFailed
    sum.droppedAtEnd &+= other.droppedAtEnd
    sum.time = max(sum.time, other.time)
    sum.packetsRefused &+= other.packetsRefused
    sum.sendersWaiting &+= other.sendersWaiting
    sum.senderWait += other.senderWait
    sum.ringFull &+= other.ringFull
    sum.poolEmpty &+= other.poolEmpty
    sum.submittedOutside &+= other.submittedOutside
    sum.outsideWakeups &+= other.outsideWakeups
    sum.starved &+= other.starved
    sum.copiedToSend &+= other.copiedToSend
    sum.copiedToChange &+= other.copiedToChange
    sum.quarantined &+= other.quarantined
    sum.residency += other.residency
    sum.interruptsSuppressed &+= other.interruptsSuppressed
    sum.loopStalls &+= other.loopStalls
    sum.activeTurns &+= other.activeTurns
    sum.driver += other.driver
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
    sum.kicks &+= other.kicks
    sum.kicksSuppressed &+= other.kicksSuppressed
    sum.interrupts &+= other.interrupts
    sum.bytesReceived &+= other.bytesReceived
    sum.bytesSubmitted &+= other.bytesSubmitted
    sum.receiveDropsChecksum &+= other.receiveDropsChecksum
    sum.receiveDropsSegmentation &+= other.receiveDropsSegmentation
    sum.receiveDropsLength &+= other.receiveDropsLength
    sum.receiveRingEmpty &+= other.receiveRingEmpty
    sum.recoveries &+= other.recoveries
    sum.resubmitted &+= other.resubmitted
    sum.quarantined &+= other.quarantined
  }
}

extension NetworkQueue {
  /// What the queue has done so far. From any thread; the queue does not notice: no job, no lock that it could wait for, no
  /// wake-up of its loop. Still there after the device is closed.
  public nonisolated var statistics: QueueStatistics {
    var statistics = counters.snapshot
    // On the loop the driver itself can be asked.
    if isHere, let core = unsafe core, !core.isFinished { statistics.driver = core.driver.statistics }
    statistics.time = loop.clock.now
    statistics.loopStalls = loop.statistics.stalls
    let refusals = inlet.refusals
    statistics.packetsRefused &+= refusals.refused
    statistics.packetsFailed &+= refusals.failed
    statistics.droppedAtEnd &+= inlet.droppedReturns
    (statistics.submittedOutside, statistics.outsideWakeups) = inlet.counts
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
