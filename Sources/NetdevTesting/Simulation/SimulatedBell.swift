/// Something that one task of a world waits for, and that others of that world ring for.
///
/// A ring is kept until it is waited for; several are one.
public final class SimulatedBell: @unchecked Sendable {
  // Proof of Sendable: touched by the tasks of one world, which are never at the same time anywhere: `schedule` checks that.
  private var isRung = false
  private var rest: CheckedContinuation<Void, Never>?
  private var isOver = false
  /// Where what it is rung for comes from; nil of a program's own.
  let name: String?
  /// The world in which it was made; nil of one that was made outside of worlds.
  private let schedule: WorldSchedule?

  /// A bell that nobody has rung for.
  public init() {
    name = nil
    schedule = SimulationThread.current
  }

  /// One that the world rings.
  init(_ name: String, _ schedule: WorldSchedule) {
    self.name = name
    self.schedule = schedule
  }

  private var isHere: Bool { schedule?.expectHere("uses a bell of the world") ?? true }

  var isWaitedFor: Bool { rest != nil }

  /// Lets the task go on that waits, or the next one that will.
  public func ring() {
    guard isHere else { return }
    isRung = true
    rest?.resume()
    rest = nil
  }

  /// Waits until somebody has rung since the last wait was over. One task at a time; no deadline, and cancelling it does not end it.
  public func wait() async {
    guard isHere else { return }
    if !isRung { await withCheckedContinuation { rest = $0 } }
    isRung = false
  }

  /// What `take` has, waiting until it has something; nil after `finish`. One task at a time; cancelling it does not end it.
  func next<Item>(_ take: () -> Item?) async -> Item? {
    while isHere, !isOver {
      if let item = take() { return item }
      await wait()
    }
    return nil
  }

  /// Ends the waiting of `next`: nobody takes any more.
  func finish() {
    guard isHere else { return }
    isOver = true
    ring()
  }
}
