internal import CNetdevSystem

/// What a queue counts, where anybody may read it: words that only the queue's loop writes, one plain store a change.
///
/// Nobody who reads is noticed: there is no job, no lock and no wake-up. Each number by itself is exact at the time it is
/// read and only grows, the driver's quarantine excepted. Two numbers read while the queue works can be of different
/// moments, but in one order: what is stored later is read earlier, so no reader sees a frame released that it does not see
/// submitted.
@safe struct QueueCounters: Sendable {
  /// The counters, in the order in which they are stored and against which they are read.
  private enum Word: Int {
    case packetsSubmitted, packetsReceived, packetsReleased, packetsFailed, ringFull, poolEmpty, starved, copiedToSend,
      quarantined, failedInFlight, packetsRefused, sendersWaiting, senderWait,
      copiedToChange
    case droppedAtEnd, interruptsSuppressed, activeTurns
    case kicks, kicksSuppressed, interrupts, bytesSubmitted, bytesReceived, receiveDropsChecksum
    case receiveDropsSegmentation, receiveDropsLength, receiveRingEmpty, driverQuarantined, resubmitted, recoveries
    case residency
  }

  private static let count = Word.residency.rawValue + ResidencyHistogram.bucketCount

  // Proof of Sendable: every access is a relaxed or ordered atomic one; the queue that made the words frees them in its
  // deinit, and who reads holds the queue.
  nonisolated(unsafe) private let words: UnsafeMutablePointer<UInt64>

  /// All zero; whoever makes them calls `free`.
  init() {
    unsafe words = .allocate(capacity: Self.count)
    unsafe words.initialize(repeating: 0, count: Self.count)
  }

  func free() { unsafe words.deallocate() }

  @inline(__always) private subscript(_ word: Word) -> UInt64 {
    get { unsafe netdev_load_acquire_u64(words + word.rawValue) }
    nonmutating set { unsafe netdev_store_release_u64(words + word.rawValue, newValue) }
  }

  // MARK: Counted by the queue, on its loop

  var packetsSubmitted: UInt64 {
    get { self[.packetsSubmitted] }
    nonmutating set { self[.packetsSubmitted] = newValue }
  }
  var packetsReceived: UInt64 {
    get { self[.packetsReceived] }
    nonmutating set { self[.packetsReceived] = newValue }
  }
  var packetsReleased: UInt64 {
    get { self[.packetsReleased] }
    nonmutating set { self[.packetsReleased] = newValue }
  }
  var packetsFailed: UInt64 {
    get { self[.packetsFailed] }
    nonmutating set { self[.packetsFailed] = newValue }
  }
  /// Of those that failed: the ones that had been published.
  var failedInFlight: UInt64 {
    get { self[.failedInFlight] }
    nonmutating set { self[.failedInFlight] = newValue }
  }
  /// Published frames that the device has no more.
  var framesBack: UInt64 { packetsReleased &+ failedInFlight }
  var ringFull: UInt64 {
    get { self[.ringFull] }
    nonmutating set { self[.ringFull] = newValue }
  }
  var poolEmpty: UInt64 {
    get { self[.poolEmpty] }
    nonmutating set { self[.poolEmpty] = newValue }
  }
  var packetsRefused: UInt64 {
    get { self[.packetsRefused] }
    nonmutating set { self[.packetsRefused] = newValue }
  }
  var sendersWaiting: UInt64 {
    get { self[.sendersWaiting] }
    nonmutating set { self[.sendersWaiting] = newValue }
  }
  /// Nanoseconds.
  var senderWait: UInt64 {
    get { self[.senderWait] }
    nonmutating set { self[.senderWait] = newValue }
  }
  /// Counted by packets that a buffer of this queue's belongs to, on its loop.
  var copiedToChange: UInt64 {
    get { self[.copiedToChange] }
    nonmutating set { self[.copiedToChange] = newValue }
  }
  /// Where that is, for the list of the queue's buffers.
  var copies: UnsafeMutablePointer<UInt64> { unsafe words + Word.copiedToChange.rawValue }
  var starved: UInt64 {
    get { self[.starved] }
    nonmutating set { self[.starved] = newValue }
  }
  var copiedToSend: UInt64 {
    get { self[.copiedToSend] }
    nonmutating set { self[.copiedToSend] = newValue }
  }
  var quarantined: UInt64 {
    get { self[.quarantined] }
    nonmutating set { self[.quarantined] = newValue }
  }
  var droppedAtEnd: UInt64 {
    get { self[.droppedAtEnd] }
    nonmutating set { self[.droppedAtEnd] = newValue }
  }
  var interruptsSuppressed: UInt64 {
    get { self[.interruptsSuppressed] }
    nonmutating set { self[.interruptsSuppressed] = newValue }
  }
  var activeTurns: UInt64 {
    get { self[.activeTurns] }
    nonmutating set { self[.activeTurns] = newValue }
  }

  /// One more frame whose time with the device fell into this part of the histogram.
  func addResidency(bucket: Int) {
    // Below the count of buckets, which the words have room for.
    let word = unsafe words + (Word.residency.rawValue + min(bucket, ResidencyHistogram.bucketCount - 1))
    unsafe netdev_store_release_u64(word, netdev_load_acquire_u64(word) &+ 1)
  }

  // MARK: Counted by the driver, copied here at the end of each turn

  var driver: QueueDriverStatistics {
    get {
      var driver = QueueDriverStatistics()
      driver.recoveries = self[.recoveries]
      driver.resubmitted = self[.resubmitted]
      driver.quarantined = self[.driverQuarantined]
      driver.receiveRingEmpty = self[.receiveRingEmpty]
      driver.receiveDropsLength = self[.receiveDropsLength]
      driver.receiveDropsSegmentation = self[.receiveDropsSegmentation]
      driver.receiveDropsChecksum = self[.receiveDropsChecksum]
      driver.bytesReceived = self[.bytesReceived]
      driver.bytesSubmitted = self[.bytesSubmitted]
      driver.interrupts = self[.interrupts]
      driver.kicksSuppressed = self[.kicksSuppressed]
      driver.kicks = self[.kicks]
      return driver
    }
    nonmutating set {
      self[.kicks] = newValue.kicks
      self[.kicksSuppressed] = newValue.kicksSuppressed
      self[.interrupts] = newValue.interrupts
      self[.bytesSubmitted] = newValue.bytesSubmitted
      self[.bytesReceived] = newValue.bytesReceived
      self[.receiveDropsChecksum] = newValue.receiveDropsChecksum
      self[.receiveDropsSegmentation] = newValue.receiveDropsSegmentation
      self[.receiveDropsLength] = newValue.receiveDropsLength
      self[.receiveRingEmpty] = newValue.receiveRingEmpty
      self[.driverQuarantined] = newValue.quarantined
      self[.resubmitted] = newValue.resubmitted
      self[.recoveries] = newValue.recoveries
    }
  }

  // MARK: Read from anywhere

  /// All of it, in a value.
  var snapshot: QueueStatistics {
    var statistics = QueueStatistics()
    statistics.residency = ResidencyHistogram { bucket in
      // Below the count of buckets.
      unsafe netdev_load_acquire_u64(words + (Word.residency.rawValue + bucket))
    }
    statistics.driver = driver
    statistics.activeTurns = activeTurns
    statistics.interruptsSuppressed = interruptsSuppressed
    statistics.droppedAtEnd = droppedAtEnd
    statistics.quarantined = quarantined
    statistics.copiedToSend = copiedToSend
    statistics.copiedToChange = copiedToChange
    statistics.starved = starved &+ statistics.driver.receiveRingEmpty
    statistics.senderWait = .nanoseconds(Int64(clamping: senderWait))
    statistics.sendersWaiting = sendersWaiting
    statistics.packetsRefused = packetsRefused
    statistics.poolEmpty = poolEmpty
    statistics.ringFull = ringFull
    statistics.packetsFailed = packetsFailed
    statistics.packetsReleased = packetsReleased
    statistics.packetsReceived = packetsReceived
    statistics.packetsSubmitted = packetsSubmitted
    return statistics
  }
}
