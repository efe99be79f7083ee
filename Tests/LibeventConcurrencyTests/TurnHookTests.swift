import CNetdevSystem
import Testing

@testable import LibeventConcurrency

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

/// A backend whose events, once armed, are ready at the next look.
private final class ReadyBackend: LoopBackend {
  final class Event: LoopBackendEvent {
    let handler: () -> Void
    var isArmed = false
    init(_ handler: @escaping () -> Void) { self.handler = handler }
    func arm(afterNanoseconds: UInt64) { isArmed = true }
    func disarm() { isArmed = false }
    func cancel() { isArmed = false }
  }

  private var events: [Event] = []
  private(set) var looks = 0

  var now: UInt64 { 1 }
  func poll() {
    looks += 1
    for event in events where event.isArmed {
      event.isArmed = false
      event.handler()
    }
  }
  func wait() {}
  func wake() {}
  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent { add(handler) }
  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent { add(handler) }

  private func add(_ handler: @escaping () -> Void) -> Event {
    let event = Event(handler)
    events.append(event)
    return event
  }
}

@Suite(.timeLimit(.minutes(1))) struct TurnHookTests {
  @Test(arguments: [false, true])
  func `what fires at the end of a turn brings another, in which the hooks see what it left`(isSource: Bool) throws {
    let backend = ReadyBackend()
    let loop = LoopExecutor(name: "hand", backend: backend)
    func onLoop<Result>(_ body: () throws -> Result) rethrows -> Result {
      unsafe netdev_set_current_loop(loop.core)
      defer { netdev_set_current_loop(nil) }
      return try body()
    }
    var fired = 0
    let timer = isSource ? nil : try onLoop { try loop.makeTimer { fired += 1 } }
    let source = isSource ? try onLoop { try loop.makeSource(descriptor: 0, readiness: .readable) { fired += 1 } } : nil
    // Turns with a look, and without anything that is ready, ask for nothing.
    for _ in 0..<64 { #expect(!loop.turnOnce()) }
    #expect(backend.looks == 4)
    onLoop {
      timer?.schedule(after: .zero)
      source?.resume()
    }
    for turn in 1...16 { #expect(loop.turnOnce() == (turn == 16), "turn \(turn)") }
    #expect(fired == 1)
    // That turn is one, and no more.
    #expect(!loop.turnOnce())
    onLoop {
      timer?.cancel()
      source?.cancel()
    }
  }

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
