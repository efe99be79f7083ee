internal import Synchronization

/// What the device's side of a queue pair has done and what it has dropped since there is a device, over all engines that the pair
/// has had.
///
/// What is done is in words that only the present engine writes, once in a turn that moved something and before the driver learns of
/// it: whoever reads them is not noticed, and finds in them every frame of which the driver knows. Drops are added at the end of a turn that dropped
/// something, so that they never meet the path of a frame that is carried.
public final class PairLedger: Sendable {
  private let transmittedFrames = Atomic<UInt64>(0)
  private let transmittedBytes = Atomic<UInt64>(0)
  private let receivedFrames = Atomic<UInt64>(0)
  private let receivedBytes = Atomic<UInt64>(0)
  private let receivedBuffers = Atomic<UInt64>(0)
  private let kicks = Atomic<UInt64>(0)
  private let calls = Atomic<UInt64>(0)
  private let suppressedCalls = Atomic<UInt64>(0)
  private let services = Atomic<UInt64>(0)
  private let earlier = Mutex(Earlier())

  /// What does not change in a turn.
  private struct Earlier {
    /// What the engines before the present one have done.
    var work = QueuePairStatistics()
    var drops = DropCounts()
  }

  /// Nothing yet.
  public init() {}

  /// What has been dropped so far. From any thread.
  public var drops: DropCounts { earlier.withLock { $0.drops } }

  /// All of it. From any thread.
  public var statistics: QueuePairStatistics {
    earlier.withLock { earlier in
      var all = earlier.work
      all += work
      all.drops = earlier.drops
      return all
    }
  }

  /// What the present engine has done.
  private var work: QueuePairStatistics {
    var work = QueuePairStatistics()
    work.transmittedFrames = transmittedFrames.load(ordering: .relaxed)
    work.transmittedBytes = transmittedBytes.load(ordering: .relaxed)
    work.receivedFrames = receivedFrames.load(ordering: .relaxed)
    work.receivedBytes = receivedBytes.load(ordering: .relaxed)
    work.receivedBuffers = receivedBuffers.load(ordering: .relaxed)
    work.kicks = kicks.load(ordering: .relaxed)
    work.calls = calls.load(ordering: .relaxed)
    work.suppressedCalls = suppressedCalls.load(ordering: .relaxed)
    work.services = services.load(ordering: .relaxed)
    return work
  }

  /// The next engine begins; the one before it writes no more.
  func beginEngine() {
    earlier.withLock { earlier in
      earlier.work += work
      write(QueuePairStatistics())
    }
  }

  /// What the engine has done so far; on its loop.
  @inline(__always) func write(_ done: borrowing QueuePairStatistics) {
    transmittedFrames.store(done.transmittedFrames, ordering: .relaxed)
    transmittedBytes.store(done.transmittedBytes, ordering: .relaxed)
    receivedFrames.store(done.receivedFrames, ordering: .relaxed)
    receivedBytes.store(done.receivedBytes, ordering: .relaxed)
    receivedBuffers.store(done.receivedBuffers, ordering: .relaxed)
    kicks.store(done.kicks, ordering: .relaxed)
    calls.store(done.calls, ordering: .relaxed)
    suppressedCalls.store(done.suppressedCalls, ordering: .relaxed)
    services.store(done.services, ordering: .relaxed)
  }

  /// Adds what a turn has dropped.
  ///
  /// - Returns: the reasons that there were none of before.
  func add(_ turn: DropCounts) -> [(FrameDirection, DropReason)] {
    earlier.withLock { earlier in
      var firsts: [(FrameDirection, DropReason)] = []
      for direction in [FrameDirection.transmitted, .received] {
        for reason in DropReason.allCases where turn[direction, reason] > 0 && earlier.drops[direction, reason] == 0 {
          firsts.append((direction, reason))
        }
      }
      earlier.drops += turn
      return firsts
    }
  }
}
