internal import CNetdevSystem

/// The scheduled timers of one loop, the earliest first: a binary heap whose timers know their places.
///
/// Timers that are due at the same nanosecond fire in the order in which they were scheduled. On the loop only.
final class TimerQueue {
  private var heap: [QueuedTimer] = []
  private var schedules: UInt64 = 0

  /// When the first timer is due.
  var earliest: UInt64? { heap.first?.deadline }

  /// Puts a timer where its deadline belongs.
  func schedule(_ timer: QueuedTimer, at deadline: UInt64) {
    remove(timer)
    schedules += 1
    timer.deadline = deadline
    timer.order = schedules
    timer.place = heap.count
    heap.append(timer)
    rise(from: timer.place)
  }

  /// Takes a timer out; one that is not scheduled is no mistake.
  func remove(_ timer: QueuedTimer) {
    let place = timer.place
    guard place >= 0 else { return }
    timer.place = -1
    let last = heap.removeLast()
    guard last !== timer else { return }
    put(last, at: place)
    rise(from: place)
    sink(from: last.place)
  }

  /// Fires what is due at `now`. What handlers schedule waits for the next call, however soon it is due.
  func fire(now: UInt64) {
    let last = schedules
    while let first = heap.first, first.deadline <= now, first.order <= last {
      remove(first)
      first.fire()
    }
  }

  private func put(_ timer: QueuedTimer, at place: Int) {
    heap[place] = timer
    timer.place = place
  }

  private func rise(from start: Int) {
    var place = start
    while place > 0, heap[place].isBefore(heap[(place - 1) / 2]) {
      let above = (place - 1) / 2
      let timer = heap[place]
      put(heap[above], at: place)
      put(timer, at: above)
      place = above
    }
  }

  private func sink(from start: Int) {
    var place = start
    while true {
      var first = place
      for below in [2 * place + 1, 2 * place + 2] where below < heap.count {
        if heap[below].isBefore(heap[first]) { first = below }
      }
      guard first != place else { return }
      let timer = heap[place]
      put(heap[first], at: place)
      put(timer, at: first)
      place = first
    }
  }
}

/// A timer that a `TimerQueue` may hold.
final class QueuedTimer: LoopBackendEvent {
  private let queue: TimerQueue
  private var handler: (() -> Void)?
  fileprivate(set) var deadline: UInt64 = 0
  fileprivate var order: UInt64 = 0
  /// Its place in the heap; negative while it is not scheduled.
  fileprivate var place = -1

  init(queue: TimerQueue, handler: @escaping () -> Void) {
    self.queue = queue
    self.handler = handler
  }

  func arm(afterNanoseconds delay: UInt64) {
    guard handler != nil else { return }
    queue.schedule(self, at: netdev_monotonic_nanoseconds().addingSaturating(delay))
  }

  func disarm() { queue.remove(self) }

  func cancel() {
    queue.remove(self)
    handler = nil
  }

  fileprivate func fire() { handler?() }

  fileprivate func isBefore(_ other: QueuedTimer) -> Bool {
    deadline == other.deadline ? order < other.order : deadline < other.deadline
  }
}
