internal import CNetdevSystem

/// The sources and timers of one loop: what is here is cancelled on the loop, at the latest when the loop ends.
///
/// Whoever made a source holds a handle; the backend's event lives here. A handle that goes on the loop takes its event
/// with it; one that goes elsewhere leaves word in the inlet, and the loop does it. So nothing of the backend is touched on
/// another thread, whoever drops the last reference, and no event outlives the backend.
final class LoopEvents {
  private var live: [Int: any LoopBackendEvent] = [:]
  private var made = 0
  /// The loop is ending: nothing is added any more.
  private(set) var isClosed = false

  /// Keeps an event; the number names it to `cancel`.
  func add(_ event: any LoopBackendEvent) -> Int {
    made += 1
    live[made] = event
    return made
  }

  /// Ends an event; one that has ended already is no mistake.
  func cancel(_ number: Int) { live.removeValue(forKey: number)?.cancel() }

  /// Ends every event. What a handler held may end others as it goes.
  func close() {
    isClosed = true
    while let (number, event) = live.first {
      live[number] = nil
      event.cancel()
    }
  }
}

/// A source's or a timer's hold on its event.
struct LoopEventHandle {
  let event: any LoopBackendEvent
  private let number: Int
  private let events: LoopEvents
  private let inlet: LoopInlet
  private let loop: UInt

  init(_ event: any LoopBackendEvent, _ core: UnsafeMutablePointer<LoopCore>) {
    self.event = event
    events = unsafe core.pointee.events
    number = events.add(event)
    inlet = unsafe core.pointee.inlet.takeUnretainedValue()
    loop = UInt(bitPattern: core)
  }

  /// True on the loop's thread. Of a loop that has ended it may be true on that of another, whose core lies at the same
  /// address: the events have been cancelled then, and calls have no effect.
  var isHere: Bool { netdev_current_loop_identity() == loop }

  /// Ends the event: here and now on the loop, and in the loop's next turn from elsewhere.
  func cancel() {
    #if Testing
    if unsafe netdev_fault_is_planted("freed-elsewhere") { return events.cancel(number) }
    #endif
    if isHere { events.cancel(number) } else { inlet.discard(number) }
  }
}
