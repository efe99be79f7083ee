import Netdev
import NetdevDevices
import NetdevTesting

/// Packets that are kept, and pools that are too small.
let poolScenarios: [Scenario] = [
  Scenario(name: "kept-packets", body: keepPackets),
  Scenario(name: "tiny-pool", body: starve),
]

/// Packets that are kept, changed while others hold them, and let go anywhere.
private func keepPackets(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await world.open(
    "loopback:?lossless=1" + (world.chance(oneIn: 2) ? "&placement=own" : "") + rings(world))
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let shelf = Shelf()
  let reader = Task.detached {
    for await packet in queue.packets {
      let frame = Frame(packet)
      if let frame, frame.flow == 1 { shelf.twins += 1 } else { ledger.note(frame) }
      if plan.disturbances.contains(.keep), world.chance(oneIn: 2) { shelf.packets.append(packet) }
      if shelf.packets.count > 8 { shelf.packets.remove(at: world.choose(below: 9)) }
    }
  }
  var twins = 0
  for number in 0..<plan.size {
    await plan.pause(world)
    if plan.disturbances.contains(.keep), world.chance(oneIn: 4) {
      // One packet in flight twice: only one flight can have its header before the frame.
      let twin = try Frame(flow: 1, number: number).packet(in: queue.pool)
      let sending = Task.detached { try await queue.send(twin) }
      try await queue.send(twin)
      try await sending.value
      twins += 2
    }
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
  while shelf.twins < twins, world.isCalm { try await Task.sleep(for: .milliseconds(1)) }
  if shelf.twins != twins { world.find("of \(twins) frames that were sent in pairs \(shelf.twins) came") }
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
  /// Frames that came of those that are sent twice at once.
  var twins = 0
  var isOver = false
}
