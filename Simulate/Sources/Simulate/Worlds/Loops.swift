import LibeventConcurrency
import NetdevTesting

/// Loops without a device.
let loopScenarios: [Scenario] = [
  Scenario(name: "loops", body: giveTimersAway)
]

/// Timers that are let go anywhere end on their loop.
private func giveTimersAway(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let loops = try (0..<2).map { try LoopExecutor(name: "loop \($0)") }
  let scopes = loops.map { LoopScope($0) }
  for number in 0..<plan.size {
    let place = number % 2
    let gift = await scopes[place].run { _ in Gift(try? loops[place].makeTimer {}) }
    await scopes[place].run { _ in gift.timer?.schedule(after: .microseconds(50)) }
    await plan.pause(world)
    if world.chance(oneIn: 2) {
      await scopes[1 - place].run { _ in gift.timer = nil }
    } else {
      gift.timer = nil
    }
  }
}

private final class Gift: @unchecked Sendable {
  var timer: LoopTimer?
  init(_ timer: LoopTimer?) { self.timer = timer }
}
