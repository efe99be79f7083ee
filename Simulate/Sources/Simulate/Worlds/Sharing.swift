import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import VirtioNet

/// Several who want the same: two devices on one pool, consumers of one queue, packets that are kept, pools that are too small.
let sharingScenarios: [Scenario] = [
  Scenario(name: "forwarding", body: forwardBetweenDevices),
  Scenario(name: "consumers", body: competeForPackets),
  Scenario(name: "kept-packets", body: keepPackets),
  Scenario(name: "tiny-pool", body: starve),
  Scenario(name: "turns", body: takeTurns),
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

/// Packets that are kept, changed while others hold them, and let go anywhere.
private func keepPackets(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await world.open(
    "loopback:?lossless=1" + (world.chance(oneIn: 2) ? "&placement=own" : "") + rings(world))
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let shelf = Shelf()
  let reader = Task.detached {
    for await packet in queue.packets {
      ledger.note(Frame(packet))
      if plan.disturbances.contains(.keep), world.chance(oneIn: 2) { shelf.packets.append(packet) }
      if shelf.packets.count > 8 { shelf.packets.remove(at: world.choose(below: 9)) }
    }
  }
  for number in 0..<plan.size {
    await plan.pause(world)
    let frame = Frame(flow: 0, number: number)
    let packet = try frame.packet(in: queue.pool)
    if plan.disturbances.contains(.keep), world.chance(oneIn: 3) {
      // Changed after it was handed over: the device must see it as it was.
      var copy = packet
      let sending = Task.detached { try await queue.send(packet) }
      if world.chance(oneIn: 2) { await Task.yield() }
      copy.withMutableBytes { bytes in bytes.storeBytes(of: 0xee, toByteOffset: 20, as: UInt8.self) }
      try await sending.value
      shelf.packets.append(copy)
    } else {
      try await queue.send(packet)
    }
  }
  try await ledger.wait(for: plan.size)
  try await device.close()
  await reader.value
  shelf.packets = []
}

/// A pool of few buffers, of which the program keeps some for a while: everybody waits, and goes on when one comes free.
private func starve(_ world: SimulatedWorld, _ plan: Plan) async throws {
  var configuration = NetworkDevice.Configuration()
  let ring = 4 << world.choose(below: 2)
  configuration.queueSize = ring
  // A receive ring full, and a few more.
  let slots = ring + 2 + world.choose(below: 8)
  configuration.pool = try PacketPool(.init(slots: slots, slotSize: 2048, hugePages: false))
  // Until the last buffer is taken, or until many rounds of them are over.
  let count = world.chance(oneIn: 2) ? 1 + world.choose(below: 2 * slots) : plan.size
  let device = try await world.open(
    "loopback:?lossless=1" + (world.chance(oneIn: 2) ? "&placement=own" : "") + rings(world),
    configuration: configuration)
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let shelf = Shelf()
  let keeps = plan.disturbances.contains(.keep)
  let hoards = world.chance(oneIn: 2)
  let reader = Task.detached {
    for await packet in queue.packets {
      ledger.note(Frame(packet))
      if keeps { shelf.packets.append(packet) }
      if !hoards, shelf.packets.count > 2 + world.choose(below: 12) {
        await plan.pause(world, microseconds: 5000)
        shelf.packets = []
      }
    }
  }
  let cleaner = Task.detached {
    // Whatever is kept is let go in the end, by somebody else.
    while ledger.count < count, !shelf.isOver, world.isCalm {
      try? await Task.sleep(for: .milliseconds(20))
      shelf.packets = []
    }
  }
  defer { shelf.isOver = true }
  for number in 0..<count {
    await plan.pause(world)
    try await send([try await madePacket(Frame(flow: 0, number: number), queue.pool)], by: queue, world)
  }
  await cleaner.value
  try await device.close()
  await reader.value
  shelf.packets = []
}

/// A packet of the pool; while that is empty, one on the heap, which moves into the pool when it is sent.
private func madePacket(_ frame: Frame, _ pool: PacketPool) async throws -> Packet {
  while true {
    do throws(NetworkDeviceError) { return try frame.packet(in: pool) } catch {
      guard error.code == .outOfMemory else { throw error }
    }
    try await Task.sleep(for: .milliseconds(1))
  }
}

/// Packets that a program keeps. Used by the tasks of one world.
final class Shelf: @unchecked Sendable {
  var packets: [Packet] = []
  var isOver = false
}

/// What several consumers have seen, in any order.
private final class Seen: @unchecked Sendable {
  var numbers: Set<Int> = []

  func note(_ frame: Frame?, _ world: SimulatedWorld) {
    guard let frame else { return world.find("a frame has other bytes than it was sent with") }
    if !numbers.insert(frame.number).inserted { world.find("frame \(frame.number) came twice") }
  }
}

/// Timers that are let go anywhere end on their loop.
func giveTimersAway(_ world: SimulatedWorld, _ plan: Plan) async throws {
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
