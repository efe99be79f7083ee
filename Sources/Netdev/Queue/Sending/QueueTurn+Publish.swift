/// Publication: what has been accepted goes to the driver.
extension QueueTurn {
  /// Publishes what has been accepted. Rings nothing: `endTurn` does.
  @usableFromInline func flush() {
    let pending = unsafe frames.pointee.pending
    let count = unsafe pending.pointee.count
    guard count > 0 else { return }
    if sampler.isDue { unsafe sample(pending.pointee.entries) }
    let published = publish(unsafe Span(_unsafeStart: pending.pointee.entries, count: count))
    let left = count - published
    if left > 0 {
      // Frames of several descriptors took the room: these wait for releases, in order.
      unsafe pending.pointee.entries.update(from: pending.pointee.entries.advanced(by: published), count: left)
      withdrawCredits()
      noteLeftOver()
    }
    unsafe pending.pointee.count = left
  }

  /// Hands frames to the driver; the number that is done with, which is that of the frames published, or of one that failed.
  private func publish(_ entries: Span<FrameEntry>) -> Int {
    guard isPublishing else { return publishElsewhere(entries) }
    do {
      let published = try driver.transmit(entries)
      unsafe frames.pointee.inFlight += published
      statistics.packetsSubmitted &+= UInt64(published)
      if published > 0 { active = true }
      return published
    } catch {
      guard error.code == .frameTooLong, entries.count > 0 else {
        breakQueue(error)
        return 0
      }
      // The program's mistake, not the device's: the queue goes on without this frame.
      active = true
      fail(entries[0], .accepted, error)
      return 1
    }
  }

  /// Publishes a whole burst; the caller has made sure of the credits. What takes more room than one descriptor a frame
  /// may leave a rest, which waits in order.
  func publishBurst(_ block: UnsafeMutablePointer<BurstBlock>) {
    flush()
    let count = unsafe block.pointee.count
    noteEntered(count)
    let pending = unsafe frames.pointee.pending
    var published = 0
    if unsafe pending.pointee.count == 0, count > 0 {
      if sampler.isDue { unsafe sample(block.pointee.entries) }
      published = publish(unsafe Span(_unsafeStart: block.pointee.entries, count: count))
      spend(count)
    }
    guard published < count else { return }
    for position in published..<count { restOfBurst(unsafe block.pointee.entries[position]) }
    withdrawCredits()
  }

  /// A frame that was accepted and could not be published: it waits, or, when the queue has just broken, fails.
  private func restOfBurst(_ entry: FrameEntry) {
    let pending = unsafe frames.pointee.pending
    if let end { return fail(entry, .accepted, end) }
    unsafe pending.pointee.entries[pending.pointee.count] = entry
    unsafe pending.pointee.count += 1
  }
}
