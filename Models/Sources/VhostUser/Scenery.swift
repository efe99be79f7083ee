internal import Explorer
internal import VirtioNet

// What the linked files use and what is not modelled, or is the explorer's.

typealias Atomic = ModelAtomic

/// What a doorbell's descriptor does here, by its number.
enum Bells {
  // Proof: the threads of a model are coroutines of one thread.
  /// Calls before this one go through; it and later ones wait until somebody lets them out.
  nonisolated(unsafe) static var blocks = Int.max
  nonisolated(unsafe) static var calls = 0
  nonisolated(unsafe) static var room: ModelAtomic<Bool>?
  nonisolated(unsafe) static var release: WakeUp?
  nonisolated(unsafe) static var isThrough: WakeUp?
  nonisolated(unsafe) static var releases = 0

  static func restart(blocksFrom call: Int) {
    Eventfd.restart()
    calls = 0
    blocks = call
    room = ModelAtomic(true, "room in the counter")
    release = WakeUp("the counter is drained")
    isThrough = WakeUp("the loop is through")
    releases = 0
  }
}

// swift-format-ignore: AlwaysUseLowerCamelCase
func netdev_eventfd_signal(_ descriptor: CInt) -> CInt {
  Bells.calls += 1
  guard Bells.calls >= Bells.blocks, let room = Bells.room, let release = Bells.release else { return 0 }
  room.store(false, ordering: .releasing)
  guard release.wait() else { return 0 }
  Bells.isThrough?.signal()
  return 0
}

// swift-format-ignore: AlwaysUseLowerCamelCase
func netdev_descriptor_is_ready(_ descriptor: CInt, _ toWrite: Bool) -> Bool {
  Bells.room?.load(ordering: .acquiring) ?? true
}

// swift-format-ignore: AlwaysUseLowerCamelCase
func netdev_eventfd_release(_ descriptor: CInt) {
  // Who drains in a circle lets the loop run in between.
  Bells.releases += 1
  guard Bells.releases == 1 else {
    _ = Bells.isThrough?.wait()
    return
  }
  Bells.room?.store(true, ordering: .releasing)
  Bells.release?.signal()
}

/// Here every step lets others go on: the machine's other processes need not.
// swift-format-ignore: AlwaysUseLowerCamelCase
@discardableResult func sched_yield() -> CInt { 0 }

/// The part of `KickWatch` that doorbells and its timer drive; the watch's actor is here one thread, whose timer always fires.
final class KickWatch {
  private let doze = Doze(dozing: true)
  private let alarm = WakeUp("the watch's alarm")

  func noteRing() { if doze.endsByRing() { alarm.signal() } }

  /// As `wakeUp` and `look`, with a patience of one look; `looks` bounds how often the timer fires.
  func run(_ bell: Doorbell, looks: Int, _ explorer: Explorer) {
    guard alarm.wait() else { return }
    for _ in 0..<looks where !explorer.isOver {
      switch bell.look() {
      case .inside(let call): bell.letOut(of: call)
      case .rung: break
      case .quiet:
        guard doze.begin(isQuiet: { bell.isQuiet }) else { continue }
        guard alarm.wait() else { return }
      }
    }
  }
}
