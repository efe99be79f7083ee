internal import CNetdevSystem
internal import Netdev
internal import Virtio

/// On which terms a pair goes on with a device that came back.
struct ResumeTerms: Sendable {
  /// The lost device is known to touch no memory any more.
  var isGone: Bool
  /// Number of the loss.
  var generation: Int
  /// What becomes of frames that were in flight.
  var inFlight: VirtioRecovery.InFlight
  /// Why the device was lost.
  var cause: NetworkDeviceError
}

// What happens to a pair's buffers when its device is lost and comes back, or another one in its place.
//
// The old rings stay as they were until there are new ones: what the lost device had given back before is still taken, with
// the checks that its word always got. What it had not given back moves to the new rings, as the private tables have it.
extension VirtioQueuePair {
  /// Frames of a lost device that nobody has fetched yet, in order.
  struct Backlog {
    var released: [TransmitEntry] = []
    var received: [TransmitEntry] = []
    var isEmpty: Bool { released.isEmpty && received.isEmpty }
  }

  /// What was in the old rings.
  struct Left {
    /// In the order of publication.
    var transmitted: [TransmitEntry] = []
    var posted: [UInt32] = []
  }

  /// The backlog first. Of a ring that belongs to a lost device what its word was good for is taken; it breaks no queue.
  func takeReleasedOfLost(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let count = Self.move(&backlog, \.released, into: &entries)
    if count > 0 { return count }
    guard isSuspended else { return try reapReleased(into: &entries) }
    return (try? reapReleased(into: &entries)) ?? 0
  }

  /// As `takeReleasedOfLost`, for received frames.
  func takeReceivedOfLost(into entries: inout MutableSpan<TransmitEntry>) throws(NetworkDeviceError) -> Int {
    let count = Self.move(&backlog, \.received, into: &entries)
    if count > 0 { return count }
    guard isSuspended else { return try reapReceived(into: &entries) }
    return (try? reapReceived(into: &entries)) ?? 0
  }

  private static func move(
    _ backlog: inout Backlog?, _ part: WritableKeyPath<Backlog, [TransmitEntry]>,
    into entries: inout MutableSpan<TransmitEntry>
  ) -> Int {
    guard var left = backlog else { return 0 }
    let count = min(left[keyPath: part].count, entries.count)
    for position in 0..<count { entries[position] = left[keyPath: part][position] }
    left[keyPath: part].removeFirst(count)
    backlog = left.isEmpty ? nil : left
    return count
  }

  /// Takes everything out of the old rings: what the lost device gave back goes to the backlog, the rest is returned.
  func emptyRings() -> Left {
    var backlog = self.backlog ?? Backlog()
    Self.reapAll(into: &backlog.released) { try reapReleased(into: &$0) }
    Self.reapAll(into: &backlog.received) { try reapReceived(into: &$0) }
    self.backlog = backlog.isEmpty ? nil : backlog
    // Buffers of frames that broke the rules: the device is done with them.
    for slot in limbo { signal.giveBack(slot) }
    limbo = []
    var left = Left()
    unsafe rings.pointee.transmit.drainInOrder { left.transmitted.append(TransmitEntry(rawValue: $0)) }
    unsafe rings.pointee.receive.drain { left.posted.append(UInt32(truncatingIfNeeded: $0)) }
    return left
  }

  private static func reapAll(
    into all: inout [TransmitEntry], _ reap: (inout MutableSpan<TransmitEntry>) throws -> Int
  ) {
    var room = [TransmitEntry](repeating: TransmitEntry(rawValue: 0), count: 64)
    while true {
      var span = room.mutableSpan
      guard let count = try? reap(&span), count > 0 else { return }
      all += room.prefix(count)
    }
  }

  /// Puts what was in the old rings into the new ones. Frames in flight are resubmitted before anything newer, or fail.
  /// Buffers that the lost device could still write to wait until it is gone.
  func refillRings(_ left: Left, _ terms: ResumeTerms) {
    let lost = NetworkDeviceError(
      .frameLost, "send", offered: "the device was lost while it had the frame: \(terms.cause)",
      advice: "send it again if it may come twice")
    switch terms.inFlight {
    case .resubmit:
      // They were in a ring of this size: they fit. Their bytes have been counted.
      let bytes = counts.bytesSubmitted
      #if Testing
      var left = left
      if unsafe netdev_fault_is_planted("overtaken-frame") { left.transmitted.reverse() }
      #endif
      let done = (try? transmit(left.transmitted.span)) ?? 0
      counts.bytesSubmitted = bytes
      counts.resubmitted &+= UInt64(done)
      for entry in left.transmitted.dropFirst(done) { signal.fail(entry, lost) }
    case .fail:
      #if Testing
      if unsafe netdev_fault_is_planted("untold-loss") { break }
      #endif
      for entry in left.transmitted { signal.fail(entry, lost) }
    }
    #if Testing
    let isGone = unsafe terms.isGone || netdev_fault_is_planted("early-return")
    #else
    let isGone = terms.isGone
    #endif
    guard isGone else {
      quarantine[terms.generation] = left.posted
      counts.quarantined &+= UInt64(left.posted.count)
      return
    }
    let done = (try? post(left.posted.span)) ?? 0
    for slot in left.posted.dropFirst(done) { signal.giveBack(slot) }
  }

  /// The device of this loss is gone at last: its buffers go back to the pool.
  func endQuarantine(_ generation: Int) {
    guard let slots = quarantine.removeValue(forKey: generation) else { return }
    counts.quarantined &-= UInt64(slots.count)
    for slot in slots { signal.giveBack(slot) }
  }
}
