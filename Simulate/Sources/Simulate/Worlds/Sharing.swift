import Netdev
import NetdevDevices
import NetdevTesting

/// Several who want the same: two devices on one pool, consumers of one queue.
let sharingScenarios: [Scenario] = [
  Scenario(name: "forwarding", body: forwardBetweenDevices),
  Scenario(name: "consumers", body: competeForPackets),
]

/// Two devices on one pool and the same loops; frames wander from one to the other and back until their time is over.
private func forwardBetweenDevices(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let apart = world.chance(oneIn: 2) ? "&placement=own" : ""
  let devices = try await world.open([
    "loopback:?lossless=1\(apart)\(rings(world))", "loopback:?lossless=1\(apart)\(rings(world))",
  ])
  let (left, right) = (devices[0].queues[0], devices[1].queues[0])
  let ledger = Ledger(world)
  let there = Task.detached {
    try await right.run { queue in try await queue.forward(from: left.packets) }
  }
  let reader = Task.detached { for await packet in right.packets { ledger.note(Frame(packet)) } }
  for number in 0..<plan.size {
    await plan.pause(world)
    try await left.send(try Frame(flow: 0, number: number).packet(in: left.pool))
  }
  try await ledger.wait(for: plan.size)
  ledger.expectAll(plan.size, of: 0)
  for device in devices { try await device.close() }
  await reader.value
  do { try await there.value } catch { if !isOfEnding(error) { throw error } }
}

/// Several consumers of one queue, on the loop and elsewhere: each frame reaches one of them.
private func competeForPackets(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await world.open("loopback:?lossless=1&placement=own" + rings(world))
  let queue = device.queues[0]
  let seen = Seen()
  let count = 2 + world.choose(below: 3)
  let consumers = (0..<count).map { number in
    Task.detached {
      if number % 2 == 0 {
        for await packet in queue.packets {
          seen.note(Frame(packet), world)
          await plan.pause(world)
        }
      } else {
        _ = await queue.run { queue in
          for await packet in queue.packets { seen.note(Frame(packet), world) }
        }
      }
    }
  }
  for number in 0..<plan.size {
    await plan.pause(world)
    if plan.disturbances.contains(.cancel), world.chance(oneIn: 8) {
      consumers[1 + world.choose(below: count - 1)].cancel()
    }
    try await queue.send(try Frame(flow: 0, number: number).packet(in: queue.pool))
  }
  while seen.numbers.count < plan.size, world.isCalm { try await Task.sleep(for: .milliseconds(1)) }
  try await device.close()
  for consumer in consumers { await consumer.value }
}

/// What several consumers have seen, in any order.
final class Seen: @unchecked Sendable {
  var numbers: Set<Int> = []

  func note(_ frame: Frame?, _ world: SimulatedWorld) {
    guard let frame else { return world.find("a frame has other bytes than it was sent with") }
    if !numbers.insert(frame.number).inserted { world.find("frame \(frame.number) came twice") }
  }
}
