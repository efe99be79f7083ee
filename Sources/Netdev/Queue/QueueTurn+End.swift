internal import CNetdevSystem
internal import LibeventConcurrency

/// How a queue ends: broken, closing, closed.
extension QueueTurn {
  /// The peer broke the protocol: no more work, and the device is told to reset. Frames in flight wait for its confirmation.
  func breakQueue(_ cause: NetworkDeviceError) {
    guard end == nil else { return }
    stopAccepting(cause)
    onBroken(cause)
  }

  /// No more work from here on. Who waits without a published frame goes on at once.
  func stopAccepting(_ cause: NetworkDeviceError) {
    guard end == nil else { return }
    end = cause
    isOpen = false
    isPublishing = false
    withdrawCredits()
    failSubmissions(cause)
    refuseCarried(cause)
    while let sender = senders.popFirst() { sender.settle(.failed(cause)) }
    while let sender = bufferLine.popFirst() { sender.settle(.failed(cause)) }
    endWish()
    endClaim()
    while let consumer = consumers.popFirst() { consumer.settle(.failed(cause)) }
    while let sleeper = sleepers.popFirst() { sleeper.settle(.failed(cause)) }
    // Pipelines may be waiting for their sources, which know nothing of this queue.
    for waiter in waiters.all { waiter.pipeline?.cancel() }
    loop.requestTurn()
  }

  /// The reset is confirmed: whatever the device released completes, everything else fails, and every buffer is home.
  func finish(_ cause: NetworkDeviceError) {
    guard !isFinished else { return }
    stopAccepting(cause)
    takeReleasedAtEnd()
    dropReady()
    dropReceivedAtEnd()
    failPending(cause)
    failAway(cause)
    driver.drain(
      transmitted: { self.fail($0, .published, cause) },
      posted: { self.releaseBuffer($0) })
    end(cause)
  }

  /// The reset was not confirmed: what the device may still write to is never used again, and the waiters are told.
  func quarantine(_ cause: NetworkDeviceError) {
    guard !isFinished else { return }
    stopAccepting(cause)
    failPending(cause)
    failAway(cause)
    driver.drain(
      transmitted: { self.fail($0, .quarantined, cause) },
      posted: { _ in self.statistics.quarantined &+= 1 })
    Quarantine.keep(pool)
    dropReady()
    end(cause)
  }

  /// What the device had released before it was reset was released.
  private func takeReleasedAtEnd() {
    var before = -1
    while unsafe frames.pointee.inFlight > 0, unsafe frames.pointee.inFlight != before {
      before = unsafe frames.pointee.inFlight
      takeReleased()
    }
  }

  /// What the device had delivered before it was reset, and nobody had asked for, is counted and dropped. What a driver that
  /// drops frames itself leaves after as many looks as its ring has room for is drained with the ring.
  private func dropReceivedAtEnd() {
    for _ in 0..<(receiveCapacity / Self.releasedCapacity + 2) {
      var entries = unsafe MutableSpan(_unsafeStart: released, count: Self.releasedCapacity)
      guard let count = try? driver.takeReceived(into: &entries) else { return }
      statistics.packetsReceived &+= UInt64(count)
      statistics.droppedAtEnd &+= UInt64(count)
      for position in 0..<count { releaseBuffer(unsafe released[position].slot) }
    }
  }

  /// Frames accepted and never published.
  private func failPending(_ cause: NetworkDeviceError) {
    let pending = unsafe frames.pointee.pending
    for position in unsafe 0..<pending.pointee.count {
      fail(unsafe pending.pointee.entries[position], .accepted, cause)
    }
    unsafe pending.pointee.count = 0
  }

  /// Frames taken from the device that nobody fetched.
  private func dropReady() {
    statistics.droppedAtEnd &+= UInt64(readyCount)
    while readyCount > 0 { releaseBuffer(takeReady().slot) }
  }

  private func end(_ cause: NetworkDeviceError) {
    isFinished = true
    statistics.driver = driver.statistics
    accountForFrames()
    unsafe pool.retire(local)
    leaveLoop()
    nextTurn.openAll()
    while let watcher = watchers.popFirst() { watcher.settle(.failed(cause)) }
    // Whoever polls sees that there is something to look at: the end.
    if let pollable { _ = netdev_eventfd_signal(pollable.descriptor) }
    while let closer = closers.popFirst() { closer.settle(.granted) }
  }
}
