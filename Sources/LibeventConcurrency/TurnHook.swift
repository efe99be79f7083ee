internal import CNetdevSystem

/// What a queue or a device does at the two ends of each turn of its loop.
///
/// A turn is: every hook's `begin`, the jobs that are due, every hook's `end`. Two C function pointers and a context, not
/// closures: a turn costs no retain. The context must outlive the hook's removal.
@safe public struct TurnHook {
  /// Order within a turn: drivers ring doorbells, then the devices of the same loop answer them.
  public enum Stage: Int, Sendable {
    /// The side that submits.
    case driver = 0
    /// The side that serves, run after every driver's `end`.
    case device = 1
  }

  let stage: Stage
  let context: UnsafeMutableRawPointer
  let begin: @convention(c) (UnsafeMutableRawPointer) -> Void
  let end: @convention(c) (UnsafeMutableRawPointer) -> Bool

  /// - Parameters:
  ///   - stage: whether it rings or answers doorbells.
  ///   - context: handed to both functions.
  ///   - begin: before the jobs of a turn: take what came in, resume who waits for it.
  ///   - end: after the jobs: publish and ring. True asks for another turn without sleeping, which is no work by itself.
  public init(
    stage: Stage, context: UnsafeMutableRawPointer,
    begin: @escaping @convention(c) (UnsafeMutableRawPointer) -> Void,
    end: @escaping @convention(c) (UnsafeMutableRawPointer) -> Bool
  ) {
    self.stage = stage
    unsafe self.context = context
    unsafe self.begin = begin
    unsafe self.end = end
  }

  /// Says that the present turn of the loop of this thread does something: called by a hook that has moved anything, and by one
  /// that looks again because it was told to poll. Turns without work and without jobs are counted
  /// (`LoopStatistics.idleTurns`). Elsewhere than on a loop it does nothing.
  public static func noteWork() {
    // What `LoopCore.run` has set for this thread, and nobody else does: the core of the loop that is running.
    guard let core = unsafe netdev_current_loop()?.assumingMemoryBound(to: LoopCore.self) else { return }
    // It is freed when its loop has run, and touched by this thread only.
    unsafe core.pointee.worked = true
  }

  /// What stands in for a removed hook until the list is made anew. Its context is never looked at.
  static var silent: TurnHook {
    let nowhere = unsafe UnsafeMutableRawPointer(bitPattern: 1).unsafelyUnwrapped
    return unsafe TurnHook(stage: .device, context: nowhere, begin: { _ in }, end: { _ in false })
  }

  /// Names a hook for its removal.
  public struct Token: Sendable, Hashable { let value: Int }
}
