internal import CSimulation
internal import LibeventConcurrency
internal import Synchronization

/// Clock, timers and descriptors of a simulated loop: the clock is the world's, and what fires when is the seed's to say, within
/// what a kernel may do. A timer never fires early; a descriptor that is ready may show that late, and does show it in the end.
final class SimulatedBackend: LoopBackend {
  // Kept: a loop that somebody still holds may outlive the run.
  fileprivate let world: WorldSchedule
  let number: Int
  let name: String
  /// That somebody has left something for the loop after the world's end.
  private let isTold = Atomic<Bool>(false)
  private let isWoken = Atomic<Bool>(false)
  /// Somebody has woken the loop, and that has not reached it.
  private(set) var isWakeUnderWay = false
  private var sources: [SimulatedSource] = []
  private var timers: [SimulatedTimer] = []
  private var made = 0
  /// The loop that this is of.
  weak var loop: WorldLoop?

  init(world: WorldSchedule, number: Int, name: String) {
    self.world = world
    self.number = number
    self.name = name
  }

  var now: UInt64 { world.now }

  func wake() {
    if world.noteWake(of: self) {
      isWakeUnderWay = true
    } else {
      isWoken.store(true, ordering: .sequentiallyConsistent)
    }
  }

  /// After the world's end, from any thread: true once, when somebody has left something that the loop would have to do.
  func noteLateWake() -> Bool {
    guard let loop, loop.isAwaitedInVain() else { return false }
    return !isTold.exchange(true, ordering: .relaxed)
  }

  /// What was under way is there: the present sleep ends, or the next one.
  func reach() {
    isWakeUnderWay = false
    isWoken.store(true, ordering: .sequentiallyConsistent)
  }

  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent {
    made += 1
    let source = SimulatedSource(number: made, self, descriptor, readiness == .writable, handler)
    sources.append(source)
    return source
  }

  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    made += 1
    let timer = SimulatedTimer(number: made, self, handler)
    timers.append(timer)
    return timer
  }

  func close() {
    sources = []
    timers = []
  }

  /// What belongs to a loop is touched on it only.
  fileprivate func expectHere(_ what: @autoclosure () -> String) {
    if let loop, !loop.isHere { world.find("\(what()) of the loop '\(loop.name)' is touched elsewhere") }
  }

  // MARK: What can happen

  /// When the first timer is due.
  var earliest: UInt64? { timers.compactMap { $0.deadline }.min() }

  /// Timers that are set.
  var timersSet: Int { timers.reduce(0) { $0 + ($1.deadline == nil ? 0 : 1) } }

  /// Whether a sleeping loop has reason to wake up.
  var hasReason: Bool {
    isWoken.load(ordering: .sequentiallyConsistent) || timers.contains { $0.isDue(at: world.now) }
      || sources.contains { $0.isReady }
  }

  func wait() {
    isWoken.store(false, ordering: .sequentiallyConsistent)
    poll()
  }

  func poll() {
    sources.removeAll { $0.isOver }
    timers.removeAll { $0.isOver }
    var ready = sources.filter { $0.isReady }
    if !ready.isEmpty { ready.shuffle(using: &world.random) }
    for (place, source) in ready.enumerated() {
      // The first always: what is ready shows in the end.
      guard place == 0 || !world.random.oneIn(4) else { continue }
      world.note(.source(loop: number, number: source.number))
      source.fire()
    }
    let due = timers.filter { $0.isDue(at: world.now) }.sorted { $0.isBefore($1) }
    for timer in due where timer.isDue(at: world.now) {
      world.note(.timer(loop: number, number: timer.number))
      timer.fire()
    }
  }
}

/// A descriptor of this process, looked at when the world says so.
private final class SimulatedSource: LoopBackendEvent {
  let number: Int
  private weak var backend: SimulatedBackend?
  private let descriptor: CInt
  private let forWriting: Bool
  private var handler: (() -> Void)?
  private var isArmed = false

  init(
    number: Int, _ backend: SimulatedBackend, _ descriptor: CInt, _ forWriting: Bool, _ handler: @escaping () -> Void
  ) {
    self.number = number
    self.backend = backend
    self.descriptor = descriptor
    self.forWriting = forWriting
    self.handler = handler
  }

  var isOver: Bool { handler == nil }
  var isReady: Bool { isArmed && handler != nil && simulation_is_ready(descriptor, forWriting) }

  func fire() { if isArmed { handler?() } }
  func arm(afterNanoseconds: UInt64) {
    backend?.expectHere("source \(number)")
    isArmed = true
  }

  func disarm() {
    backend?.expectHere("source \(number)")
    isArmed = false
  }

  func cancel() {
    backend?.expectHere("source \(number)")
    isArmed = false
    handler = nil
  }
}

/// A one-shot timer by the world's clock.
private final class SimulatedTimer: LoopBackendEvent {
  let number: Int
  private weak var backend: SimulatedBackend?
  private let world: WorldSchedule
  private var handler: (() -> Void)?
  private(set) var deadline: UInt64?
  private var order: UInt64 = 0

  init(number: Int, _ backend: SimulatedBackend, _ handler: @escaping () -> Void) {
    self.number = number
    self.backend = backend
    world = backend.world
    self.handler = handler
  }

  var isOver: Bool { handler == nil }

  func isDue(at now: UInt64) -> Bool { deadline.map { $0 <= now } ?? false }

  func isBefore(_ other: SimulatedTimer) -> Bool {
    (deadline ?? .max, order) < (other.deadline ?? .max, other.order)
  }

  func fire() {
    deadline = nil
    handler?()
  }

  func arm(afterNanoseconds delay: UInt64) {
    guard handler != nil else { return }
    backend?.expectHere("timer \(number)")
    let (sum, overflow) = world.now.addingReportingOverflow(delay)
    deadline = overflow ? .max : sum
    order = world.nextOrder()
  }

  func disarm() {
    backend?.expectHere("timer \(number)")
    deadline = nil
  }

  func cancel() {
    backend?.expectHere("timer \(number)")
    deadline = nil
    handler = nil
  }
}
