internal import CNetdevSystem

/// What makes and turns the loops of one thread in place of threads of their own: a simulated world.
///
/// While a world is the thread's current one, every loop that is made there is the world's, whoever makes it: a device's control
/// loop, its queues' loops, the loop of a software device. Everything here happens on that one thread.
package protocol LoopWorld: AnyObject {
  /// Clock, waiting and sources for a loop of this name.
  func makeBackend(for name: String) -> any LoopBackend
  /// Turns the loop from here on, until it is over.
  func adopt(_ loop: WorldLoop)
  /// Makes a call that may block, outside the loops, at some later step: as a thread of its own would.
  func start(_ call: @escaping @Sendable () -> Void)
  /// Somebody has seen that something is wrong.
  func find(_ text: String)
}

/// The world of the calling thread.
package enum LoopWorlds {
  private final class Current {
    let world: any LoopWorld
    init(_ world: any LoopWorld) { self.world = world }
  }

  /// The thread's world; nil where loops have threads of their own.
  package static var current: (any LoopWorld)? {
    guard let address = unsafe netdev_current_world() else { return nil }
    // What `with` has put there, and holds until it takes it away again.
    return unsafe Unmanaged<Current>.fromOpaque(address).takeUnretainedValue().world
  }

  /// Runs `body` with `world` as the thread's own.
  package static func with(_ world: any LoopWorld, _ body: () -> Void) {
    let current = Current(world)
    unsafe netdev_set_current_world(Unmanaged.passUnretained(current).toOpaque())
    withExtendedLifetime(current) { body() }
    netdev_set_current_world(nil)
  }

  /// Runs `body` as code that is on no loop, as that of the runtime's pool is: a turn that is held up meanwhile does not show.
  package static func outsideLoops(_ body: () -> Void) {
    let present = unsafe netdev_current_loop()
    netdev_set_current_loop(nil)
    body()
    unsafe netdev_set_current_loop(present)
  }
}

/// A loop of a world, which does by itself what a loop's thread does: turns, sleeps, ends.
@safe package final class WorldLoop: @unchecked Sendable {
  // Proof of Sendable: everything is touched on the world's thread, except `inlet`, which is made for any thread, and the
  // constants.

  /// What a step came to.
  package enum Step: Sendable {
    /// It has turned, and has reason to turn again.
    case turned
    /// It has turned and has no reason to turn again, but does not sleep yet.
    case hesitated
    /// It sleeps, after a turn now or before.
    case slept
    /// It would sleep, and something has come meanwhile.
    case stayed
    /// Its sleep is over.
    case woke
    /// Its backend has fired what was ready, and others do not see yet that its sleep is over.
    case stirred
    /// It has ended: it is never stepped again.
    case ended
  }

  /// The loop's name.
  package let name: String
  private var core: UnsafeMutablePointer<LoopCore>?
  private let inlet: LoopInlet
  private let world: UnsafeMutableRawPointer?
  private let identity: UInt
  /// In a turn, perhaps one that is held up while other loops turn.
  package private(set) var isTurning = false
  /// It waits for its backend.
  package var isAsleep: Bool { place == .asleep }
  private var place = Place.awake

  /// Where its thread is.
  private enum Place {
    /// About to turn.
    case awake
    /// Between the end of a turn and saying that it sleeps.
    case hesitant
    case asleep
    /// Between the end of the wait and saying so.
    case stirring
  }

  init(_ core: UnsafeMutablePointer<LoopCore>, name: String) {
    unsafe self.core = core
    self.name = name
    inlet = unsafe core.pointee.inlet.takeUnretainedValue()
    unsafe world = netdev_current_world()
    identity = UInt(bitPattern: core)
  }

  /// True until the executor has gone and the loop with it.
  package var isLive: Bool { unsafe core != nil }

  /// Code that runs now belongs to this loop.
  package var isHere: Bool { netdev_current_loop_identity() == identity }

  /// What it has done so far.
  package var statistics: LoopStatistics { inlet.statistics }

  /// One turn of no more jobs than `budget`; of a loop that sleeps, the end of its sleep: what its backend's `wait` fires.
  ///
  /// - Parameter isBroken: it stops on the way into its sleep, or out of it, where a thread could be interrupted; the rest is a step
  ///   of its own.
  package func step(jobs budget: Int, isBroken: Bool = false) -> Step {
    guard let core = unsafe core, !isTurning else { return .ended }
    if inlet.shallStop { return finish() }
    let present = unsafe netdev_current_loop()
    unsafe netdev_set_current_loop(core)
    isTurning = true
    defer {
      isTurning = false
      unsafe netdev_set_current_loop(present)
    }
    inlet.noteTurn(at: unsafe core.pointee.backend.now)
    switch place {
    case .awake:
      if unsafe LoopCore.turn(core, jobs: budget) { return .turned }
      place = .hesitant
      if isBroken { return .hesitated }
      return unsafe fallAsleep(core) ? .slept : .turned
    case .hesitant: return unsafe fallAsleep(core) ? .slept : .stayed
    case .asleep:
      unsafe core.pointee.backend.wait()
      place = .stirring
      return isBroken ? .stirred : wakeUp()
    case .stirring: return wakeUp()
    }
  }

  private func fallAsleep(_ core: UnsafeMutablePointer<LoopCore>) -> Bool {
    let sleeps = inlet.beginSleep()
    place = sleeps ? .asleep : .awake
    if sleeps { unsafe LoopCore.noteSleep(core) }
    return sleeps
  }

  private func wakeUp() -> Step {
    inlet.endSleep()
    place = .awake
    return .woke
  }

  /// The executor is gone: at once, or after the turn that is under way. Elsewhere than in its world it only says so.
  func end() {
    if unsafe netdev_current_world() == world, !isTurning {
      _ = finish()
    } else {
      inlet.requestStop()
    }
  }

  /// The world is over, and never turns the loop again. Whoever leaves something for it wakes it from here on.
  package func retire() {
    if let core = unsafe core { unsafe inlet.drain(into: &core.pointee.jobs) }
    _ = inlet.takeDiscarded()
    inlet.sleepForGood()
  }

  /// After `retire`, from any thread that has woken it: somebody has left a job or asked for a turn. That a handle or the executor goes
  /// asks for nothing.
  package func isAwaitedInVain() -> Bool {
    inlet.sleepForGood()
    return inlet.hasJobs || !inlet.shallStop && !inlet.hasDiscarded
  }

  private func finish() -> Step {
    if let core = unsafe core { unsafe LoopCore.free(core) }
    unsafe core = nil
    return .ended
  }
}
