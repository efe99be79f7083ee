import Netdev
import NetdevDevices
import NetdevTesting

/// Frames that come back by themselves: none is lost, each comes once, in order.
let loopbackScenarios: [Scenario] = [
  Scenario(name: "loopback-inline") { world, plan in
    try await echo(world, plan, "loopback:?lossless=1&queues=\(1 + world.choose(below: 2))" + rings(world))
  },
  Scenario(name: "loopback-apart") { world, plan in
    try await echo(
      world, plan, "loopback:?lossless=1&placement=own&queues=\(1 + world.choose(below: 2))" + rings(world))
  },
  Scenario(name: "loopback-plain-rings") { world, plan in
    // Without an event index, indirect tables and mergeable buffers: the other ways through the same code.
    let options = ["event_idx=0", "indirect=0", "mrg_rxbuf=0"].filter { _ in world.chance(oneIn: 2) }.map { "&" + $0 }
    let rings = rings(world)
    // Packed rings have any size.
    let size = 4 << world.choose(below: 3) + (rings.contains("packed") ? world.choose(below: 4) : 0)
    try await echo(
      world, plan, "loopback:?lossless=1&queue_size=\(size)&placement=own\(rings)" + options.joined())
  },
  Scenario(name: "batches") { world, plan in
    try await echo(world, plan, "loopback:?lossless=1&placement=own" + rings(world), batch: 5)
  },
  Scenario(name: "bursts", body: passBursts),
  Scenario(name: "pipeline") { world, plan in try await reflect(world, plan) },
]

/// What a URL says of rings: split or packed, with IN_ORDER or without, as the seed chooses.
func rings(_ world: SimulatedWorld) -> String {
  ["", "", "&packed=1", "&in_order=1", "&packed=1&in_order=1"][world.choose(below: 5)]
}

/// Each queue pair sends its flows and takes them back.
func echo(_ world: SimulatedWorld, _ plan: Plan, _ url: String, batch: Int = 1) async throws {
  let device = try await world.open(url)
  let ledger = Ledger(world)
  try await device.run { queue in
    let flow = queue.index
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        var number = 0
        while number < plan.size {
          await plan.pause(world)
          let count = min(1 + world.choose(below: batch), plan.size - number)
          let packets = try (number..<number + count).map { try Frame(flow: flow, number: $0).packet(in: queue.pool) }
          number += count
          try await send(packets, by: queue, world)
        }
      }
      for await packet in queue.packets {
        ledger.note(Frame(packet))
        if ledger.isComplete(plan.size, flow) { break }
        await plan.pause(world)
      }
      try await group.waitForAll()
    }
  }
}

extension Ledger {
  func isComplete(_ size: Int, _ flow: Int) -> Bool { newestNumber(of: flow) == size - 1 }

  /// Waits until so many frames have gone round so many times: none is missing in any round, whose number is the flow's.
  func expect(rounds: Int, of size: Int) async throws {
    try await wait(for: size * rounds)
    for round in 0..<rounds { expectAll(size, of: round) }
  }
}

/// One of the ways to send. Of those that say when the device has given the buffer back, it says which frame that was.
func send(
  _ packets: consuming [Packet], by queue: NetworkQueue, _ world: SimulatedWorld, isSubmitted: Bool = true,
  _ whenReleased: (Frame) -> Void = { _ in }
) async throws {
  if packets.count > 1 {
    let frames = packets.map { Frame($0) }
    try await queue.send(contentsOf: packets)
    return frames.forEach { if let frame = $0 { whenReleased(frame) } }
  }
  guard let packet = packets.popLast() else { return }
  let frame = Frame(packet)
  let way = world.choose(below: isSubmitted ? 3 : 2)
  world.note("\(frame?.name ?? "a frame") is sent \(["by send", "for a receipt", "by submit"][way])")
  switch way {
  case 0: try await queue.send(packet)
  case 1: try await queue.submitForReceipt(packet).released
  default: return try await queue.submit(packet)
  }
  if let frame { whenReleased(frame) }
}

/// Sends a flow in batches of a few; says after each how many frames have been sent.
func sendBatches(
  by queue: NetworkQueue, _ world: SimulatedWorld, _ plan: Plan, _ whenSent: (Int) -> Void = { _ in }
) async throws {
  var sent = 0
  while sent < plan.size {
    await plan.pause(world)
    let numbers = sent..<min(plan.size, sent + 1 + world.choose(below: 8))
    try await queue.send(contentsOf: numbers.map { try Frame(flow: 0, number: $0).packet(in: queue.pool) })
    sent = numbers.upperBound
    whenSent(sent)
  }
}

/// A pipeline on one device's queue, frames put in by hand; each goes round a few times, in the order in which it was put in.
func reflect(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await world.open(
    "loopback:?lossless=1" + (world.chance(oneIn: 2) ? "&placement=own" : "") + rings(world))
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let limit = world.choose(below: 3) == 0 ? Int.max : 1 + world.choose(below: 4)
  let rounds = 3
  let tally = Tally()
  let pipeline = Task.detached {
    try await device.run { queue in
      try await queue.forward(
        from: queue.packets.compactMap { packet -> Packet? in
          // Asked for a packet, it has fewer in flight than its limit; those sent by hand are not its own.
          let inFlight = tally.forwarded + tally.sent - Int(queue.statistics.packetsReleased)
          if inFlight >= limit { world.find("the pipeline asks for more with \(inFlight) in flight of \(limit)") }
          var packet = packet
          let frame = Frame(packet)
          ledger.note(frame)
          // Its flow is the round that it is in; after the last one it is at its end.
          guard var frame, frame.flow + 1 < rounds else { return nil }
          frame.flow += 1
          frame.write(to: &packet)
          tally.forwarded += 1
          return packet
        }, inFlight: limit)
    }
  }
  defer { pipeline.cancel() }
  try await sendBatches(by: queue, world, plan) { tally.sent = $0 }
  try await ledger.expect(rounds: rounds, of: plan.size)
  pipeline.cancel()
  do { try await pipeline.value } catch { if !isOfEnding(error) { throw error } }
}

/// Bursts that come in and go out again as they lie, without the frames that are at their end; each goes round a few times.
private func passBursts(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await world.open("loopback:?lossless=1" + (world.chance(oneIn: 2) ? "&placement=own" : ""))
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let rounds = 3
  let program = Task.detached {
    try await queue.run { queue in
      while var burst = await queue.receiveBurst() {
        burst.filter { bytes in
          let frame = Frame(bytes)
          ledger.note(frame)
          guard var frame, frame.flow + 1 < rounds else { return false }
          frame.flow += 1
          frame.write(to: &bytes)
          return true
        }
        if world.chance(oneIn: 2) { try await queue.send(burst) } else { try await queue.submit(burst) }
      }
    }
  }
  defer { program.cancel() }
  try await sendBatches(by: queue, world, plan)
  try await ledger.expect(rounds: rounds, of: plan.size)
  try await device.close()
  do { try await program.value } catch { if !isOfEnding(error) { throw error } }
}

/// What a pipeline was given. Used by the tasks of one world.
private final class Tally: @unchecked Sendable {
  var sent = 0
  var forwarded = 0
}
