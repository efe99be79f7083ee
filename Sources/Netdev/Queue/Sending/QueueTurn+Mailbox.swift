internal import CNetdevSystem
internal import LibeventConcurrency

/// The loop's end of the mailbox.
extension QueueTurn {
  /// What a task left behind before it came to the loop is taken before what it does here.
  func takeFromOutside() {
    if mailbox.hasReturns { takeReturned() }
    if !mailbox.isEmpty { takeSubmissions() }
  }

  /// Takes what has been left in the mailbox: accepts as much as there is room for, the rest stands before all senders.
  func takeSubmissions() {
    guard !mailbox.isEmpty, isOpen else { return }
    // What is there already was left earlier.
    statistics.copiedToSend &+= mailbox.takeAll(into: &backlog)
    updateCredits()
  }

  /// Somebody waits for room: who comes from outside stands in the line too.
  func refuseSubmissions() {
    guard !isRefusing else { return }
    isRefusing = true
    mailbox.setOpen(false)
  }

  /// Accepts packets from the backlog, no more than `room`; returns the room that is left.
  func acceptBacklog(_ room: Int) -> Int {
    var room = room
    while room > 0, let packet = backlog.popFirst() {
      room -= 1
      // Its place is taken from the room, not from the credits.
      lend(1)
      // It is counted with those that have been left in the mailbox.
      noteEntered(-1)
      unsafe QueueFrames.accept(consume packet, to: frames)
    }
    return room
  }

  /// A consumer outside has been given packets ahead: what it submits meanwhile is taken when it comes back, or after a
  /// millisecond.
  func deferSubmissions() {
    handOuts &+= 1
    guard !submissionTimerRuns else { return }
    submissionTimerRuns = true
    mailbox.setDeferring(true)
    handOutsSeen = handOuts
    submissionTimer?.schedule(after: .milliseconds(1))
  }

  func submissionTimerFired() {
    takeSubmissions()
    if isOpen, handOuts != handOutsSeen {
      handOutsSeen = handOuts
      submissionTimer?.schedule(after: .milliseconds(1))
    } else {
      submissionTimerRuns = false
      #if Testing
      if unsafe netdev_fault_is_planted("endless-deferring") { return takeSubmissions() }
      #endif
      mailbox.setDeferring(false)
      // Left between the first look and the end of deferring.
      takeSubmissions()
    }
    loop.requestTurn()
  }

  /// The queue has ended: what has not been published fails.
  func failSubmissions(_ cause: NetworkDeviceError) {
    mailbox.end(cause)
    takeReturned()
    statistics.copiedToSend &+= mailbox.takeAll(into: &backlog)
    noteFailed(backlog.count)
    backlog.removeAll()
  }
}
