import LibeventConcurrency
import Testing

/// What the hooks of a test share. Touched on the loop only.
private struct Script {
  var loop: LoopExecutor
  var victim: TurnHook.Token?
  var calls = 0
}

/// An actor on a loop with two hooks: one that removes the other when told to, one that counts its calls.
@safe private actor Hooks {
  private let loop: LoopExecutor
  private let script: UnsafeMutablePointer<Script>
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(_ loop: LoopExecutor) {
    self.loop = loop
    unsafe script = .allocate(capacity: 1)
    unsafe script.initialize(to: Script(loop: loop))
  }

  func add() throws -> TurnHook.Token {
    let remover = unsafe TurnHook(
      stage: .driver, context: UnsafeMutableRawPointer(script), begin: { _ in },
      end: { context in
        let script = unsafe context.assumingMemoryBound(to: Script.self)
        if let victim = unsafe script.pointee.victim { try? unsafe script.pointee.loop.removeHook(victim) }
        unsafe script.pointee.victim = nil
        return false
      })
    let counter = unsafe TurnHook(
      stage: .device, context: UnsafeMutableRawPointer(script), begin: { _ in },
      end: { context in
        unsafe context.assumingMemoryBound(to: Script.self).pointee.calls += 1
        return false
      })
    _ = try loop.addHook(remover)
    return try loop.addHook(counter)
  }

  /// The calls before the turn in which the counting hook is removed, ahead of its own place in that turn.
  func removeInThisTurn(_ token: TurnHook.Token) -> Int {
    unsafe script.pointee.victim = token
    return unsafe script.pointee.calls
  }

  func calls() -> Int { unsafe script.pointee.calls }
}

@Suite(.timeLimit(.minutes(1))) struct TurnHookTests {
  @Test func `a hook removed in the middle of a turn is not called again, not even in that turn`() async throws {
    let hooks = Hooks(try LoopExecutor(name: "test"))
    let token = try await hooks.add()
    // Sleeping leaves the loop; a task that only awaits an actor of the loop would stay in one turn for ever.
    while await hooks.calls() == 0 { try await Task.sleep(for: .milliseconds(1)) }
    let before = await hooks.removeInThisTurn(token)
    try await Task.sleep(for: .milliseconds(5))
    #expect(await hooks.calls() == before)
  }
}
