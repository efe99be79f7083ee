internal import CNetdevSystem
internal import LibeventConcurrency

/// That no frame is lost by this queue without a word: a world holds it against each queue at its end.
extension QueueTurn {
  /// So many frames have been accepted at once. Counted in builds for tests alone.
  @inline(__always) func noteEntered(_ count: Int) {
    #if Testing
    unsafe frames.pointee.entered &+= UInt64(bitPattern: Int64(count))
    #endif
  }

  /// A frame fails that has not been accepted: the device never takes one like it.
  func noteUnsent() {
    noteEntered(1)
    noteFailed()
  }

  /// At the end of a queue of a world: what was accepted has been released, or has failed.
  ///
  /// In a build that is not for tests acceptance is not counted, as each frame would pay for it: there it is what was published.
  func accountForFrames() {
    guard let world = LoopWorlds.current else { return }
    #if Testing
    let (taken, what) = unsafe (frames.pointee.entered &+ mailbox.counts.packets, "accepted")
    let failed = statistics.packetsFailed
    #else
    let (taken, what) = (statistics.packetsSubmitted, "published")
    let failed = statistics.failedInFlight
    #endif
    let released = statistics.packetsReleased
    guard taken != released &+ failed else { return }
    world.find("the queue '\(loop.name)' has \(taken) frames \(what), \(released) released and \(failed) failed")
  }
}
