internal import CNetdevSystem

/// What a queue counts, where anybody may read it: words that only the queue's loop writes, one plain store a change.
///
/// The words lie as the numbers of ``QueueStatistics`` do, and have their names: a number is declared there, and nowhere else.
///
/// Nobody who reads is noticed: there is no job, no lock and no wake-up. Each number by itself is exact at the time it is
/// read and only grows, waiting senders and the driver's quarantine excepted. Two numbers read while the queue works can be of different
/// moments, but in one order: what is stored later is read earlier, so no reader sees a frame released that it does not see
/// submitted.
@safe @dynamicMemberLookup struct QueueCounters: Sendable {
  // The numbers of a queue, then what is not among them.
  private static var failedInFlightWord: Int { QueueStatistics.numberCount }
  private static var residencyWord: Int { failedInFlightWord + 1 }
  private static var wordCount: Int { residencyWord + ResidencyHistogram.bucketCount }

  // Proof of Sendable: every access is a relaxed or ordered atomic one; the queue that made the words frees them in its
  // deinit, and who reads holds the queue.
  nonisolated(unsafe) private let words: UnsafeMutablePointer<UInt64>

  /// All zero; whoever makes them calls `free`.
  init() {
    unsafe words = .allocate(capacity: Self.wordCount)
    unsafe words.initialize(repeating: 0, count: Self.wordCount)
  }

  func free() { unsafe words.deallocate() }

  /// A word, by its place below `wordCount`.
  @inline(__always) private subscript(_ place: Int) -> UInt64 {
    get { unsafe netdev_load_acquire_u64(words + place) }
    nonmutating set { unsafe netdev_store_release_u64(words + place, newValue) }
  }

  // MARK: Counted by the queue, on its loop

  /// One of the numbers of a queue.
  @inline(__always) subscript(dynamicMember number: WritableKeyPath<QueueStatistics, UInt64>) -> UInt64 {
    get { self[Self.place(of: number)] }
    nonmutating set { self[Self.place(of: number)] = newValue }
  }

  /// Of the frames that failed: the ones that had been published.
  var failedInFlight: UInt64 {
    get { self[Self.failedInFlightWord] }
    nonmutating set { self[Self.failedInFlightWord] = newValue }
  }

  /// Published frames that the device has no more.
  var framesBack: UInt64 { self.packetsReleased &+ failedInFlight }

  /// Where copies of packets in buffers of this queue's are counted, on its loop: for the list of these buffers.
  var copies: UnsafeMutablePointer<UInt64> { unsafe words + Self.place(of: \.copiedToChange) }

  /// One more frame whose time with the device fell into this part of the histogram.
  func addResidency(bucket: Int) {
    // Below the count of buckets, which the words have room for.
    self[Self.residencyWord + min(bucket, ResidencyHistogram.bucketCount - 1)] &+= 1
  }

  /// Where a number lies: the compiler knows it.
  @inline(__always) private static func place(of number: KeyPath<QueueStatistics, UInt64>) -> Int {
    // What can be written is stored, and has an offset.
    (MemoryLayout<QueueStatistics>.offset(of: number) ?? 0) / MemoryLayout<UInt64>.size
  }

  // MARK: Counted by the driver, copied here at the end of each turn

  private static var driverPlace: Int {
    (MemoryLayout<QueueStatistics>.offset(of: \.driver) ?? 0) / MemoryLayout<UInt64>.size
  }

  /// What a driver counts, in one piece.
  var driver: QueueDriverStatistics {
    get {
      var driver = QueueDriverStatistics()
      driver.withNumbers { numbers in read(into: &numbers, from: Self.driverPlace) }
      return driver
    }
    nonmutating set {
      let place = unsafe words + Self.driverPlace
      unsafe withUnsafeBytes(of: newValue) { bytes in
        // A driver's statistics are nothing but 64-bit numbers: the compiler knows how many.
        for number in 0..<MemoryLayout<QueueDriverStatistics>.size / MemoryLayout<UInt64>.size {
          unsafe netdev_store_release_u64(
            place + number, bytes.load(fromByteOffset: number * MemoryLayout<UInt64>.size, as: UInt64.self))
        }
      }
    }
  }

  // MARK: Read from anywhere

  /// All of it, in a value.
  var snapshot: QueueStatistics {
    var statistics = QueueStatistics()
    statistics.residency = ResidencyHistogram { bucket in self[Self.residencyWord + bucket] }
    statistics.withNumbers { numbers in read(into: &numbers, from: 0) }
    statistics.starved &+= statistics.driver.receiveRingEmpty
    return statistics
  }

  /// The last one first.
  private func read(into numbers: inout MutableSpan<UInt64>, from first: Int) {
    for number in numbers.indices.reversed() { numbers[number] = self[first + number] }
  }
}
