import Netdev
import NetdevDevices
import NetdevTesting

/// Ends at any moment: a close, a cancelled `run`, cancelled senders. Every wait ends, with what it says it throws.
let endingScenarios: [Scenario] = [
  Scenario(name: "close") { world, plan in try await end(world, plan, "loopback:?lossless=1&queues=2" + rings(world)) },
  Scenario(name: "close-apart") { world, plan in
    try await end(world, plan, "loopback:?lossless=1&placement=own&queue_size=4" + rings(world))
  },
  Scenario(name: "cancelled-senders", body: cancelSenders),
  Scenario(name: "cancelled-open", body: cancelOpening),
]

private func end(_ world: SimulatedWorld, _ plan: Plan, _ url: String) async throws {
  let device = try await world.open(url)
  let ledger = Ledger(world)
  let program = Task.detached {
    try await device.run { queue in
      let flow = queue.index
      let senders = Task.detached {
        for number in 0..<plan.size * 4 {
          try await send([try Frame(flow: flow, number: number).packet(in: queue.pool)], by: queue, world)
        }
      }
      for await packet in queue.packets { ledger.note(Frame(packet)) }
      do { try await senders.value } catch { if !isOfEnding(error) { throw error } }
    }
  }
  defer { program.cancel() }
  try await Task.sleep(for: .microseconds(world.choose(below: 400)))
  if world.chance(oneIn: 2) { program.cancel() } else { try await device.close() }
  do { try await program.value } catch { if !isOfEnding(error) { throw error } }
}

/// Senders, receipts and batches that are cancelled anywhere: each ends once, and the frames that were published go round.
private func cancelSenders(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await world.open("loopback:?lossless=1&placement=own&queue_size=4" + rings(world))
  let queue = device.queues[0]
  // Of a sender that is cancelled, some frames are never sent.
  let ledger = Ledger(world, isLossy: true)
  let reader = Task.detached { for await packet in queue.packets { ledger.note(Frame(packet)) } }
  let senders = (0..<6).map { flow in
    Task.detached {
      var sent = 0
      for number in 0..<plan.size {
        do {
          try await queue.send(try Frame(flow: flow, number: number).packet(in: queue.pool))
          sent += 1
        } catch {
          if !isOfEnding(error) { throw error }
        }
      }
      return sent
    }
  }
  if plan.disturbances.contains(.cancel) {
    for sender in senders where world.chance(oneIn: 2) {
      try await Task.sleep(for: .microseconds(world.choose(below: 200)))
      sender.cancel()
    }
  }
  var sent = 0
  for sender in senders { sent += try await sender.value }
  try await ledger.wait(for: sent)
  try await Task.sleep(for: .milliseconds(10))
  if world.isCalm, ledger.count != sent { world.find("\(sent) frames were sent, \(ledger.count) came") }
  try await device.close()
  await reader.value
}

/// Opening is cancelled at any moment: it throws, or there is a device.
private func cancelOpening(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let url = "loopback:?queues=2" + (world.chance(oneIn: 2) ? "&placement=own" : "") + rings(world)
  let opening = Task.detached { try await world.open(url) }
  try await Task.sleep(for: .microseconds(world.choose(below: 60)))
  opening.cancel()
  do {
    let device = try await opening.value
    if world.chance(oneIn: 2) { try await device.close() }
  } catch {
    if !isOfEnding(error) { throw error }
  }
}
