internal import CNetdevSystem
internal import LibeventConcurrency

// How a task waits on its queue.
extension NetworkQueue {
  /// Waits until the waiter is settled, or the task is cancelled while it stands in a line; the waiter is then idle again.
  func wait(_ waiter: Waiter) async -> Waiter.Outcome {
    let index = waiter.index
    let generation = waiter.generation
    await withTaskCancellationHandler {
      // Through `self`: a closure that does not use it would leave the actor, and the gate belongs to the loop.
      await self.park(waiter)
    } onCancel: {
      loop.execute { self.assumeIsolated { $0.cancelWait(index, generation) } }
    }
    let outcome = waiter.outcome
    turn.waiters.putBack(waiter)
    return outcome
  }

  /// Waits for room or buffers, which the statistics show.
  func waitToSend(_ waiter: Waiter) async -> Waiter.Outcome {
    let since = loop.now
    turn.statistics.sendersWaiting &+= 1
    let outcome = await wait(waiter)
    turn.statistics.sendersWaiting &-= 1
    turn.statistics.senderWaitTime &+= loop.now &- since
    return outcome
  }

  /// Lets the loop's turn end, and goes on in the next one: what a task does that has used up a budget.
  func waitForNextTurn() async {
    turn.loop.requestTurn()
    await turn.nextTurn.pass()
  }

  /// The same, while the queue has turns.
  func letTurnEnd() async { if turn.isOpen { await waitForNextTurn() } }

  /// Suspends at the waiter's gate, unless it has been settled already.
  func park(_ waiter: Waiter) async {
    if case .pending = waiter.outcome { await waiter.gate.pass() }
  }

  /// A waiting task was cancelled: it goes on at once, unless what it waits for has just come.
  func cancelWait(_ index: UInt32, _ generation: UInt64) {
    #if Testing
    if unsafe netdev_fault_is_planted("leaked-waiter") { return }
    #endif
    guard let waiter = turn.waiters[index], waiter.generation == generation else { return }
    #if Testing
    if unsafe netdev_fault_is_planted("deaf-consumer"), [.packet, .burst, .ahead].contains(waiter.wish) { return }
    #endif
    if turn.senders.remove(waiter) || turn.bufferLine.remove(waiter) {
      #if Testing
      if unsafe netdev_fault_is_planted("kept-room") { return waiter.settle(.failed(.cancelled("wait"))) }
      #endif
      // Who stood behind it may need less.
      turn.updateCredits()
      waiter.settle(.failed(.cancelled("wait")))
    } else if turn.consumers.remove(waiter) || turn.watchers.remove(waiter) || turn.closers.remove(waiter)
      || turn.sleepers.remove(waiter)
    {
      waiter.settle(.failed(.cancelled("wait")))
    }
  }
}
