import Netdev
import NetdevTesting
import VirtioNet

/// A peer delivers whatever there are buffers for, to a program that keeps what it gets until it has all of the pool: when it lets
/// go, elsewhere than on the loop, reception goes on by itself.
func deliverToHoarder(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let slots = 6 + world.choose(below: 8)
  let count = plan.size * 4
  var configuration = NetworkDevice.Configuration()
  configuration.pool = try PacketPool(.init(slots: slots, slotSize: 2048, hugePages: false))
  configuration.queueSize = 4
  let source = LyingDevice()
  let device = try await NetworkDevice.open(driver: VirtioNetDriver(transport: source), configuration: configuration)
  world.watch(device.pool)
  let queue = device.queues[0]
  let bell = SimulatedBell()
  await source.perform { pair in
    pair.whenKicked = { _ in bell.ring() }
    pair.receive.armKicks()
  }
  let ledger = Ledger(world)
  let shelf = Shelf()
  let reader = Task.detached {
    for await packet in queue.packets {
      ledger.note(Frame(packet))
      shelf.packets.append(packet)
    }
  }
  let cleaner = Task.detached {
    var vain = 0
    while ledger.count < count, vain < 20 {
      let before = ledger.count
      try? await Task.sleep(for: .milliseconds(1 + world.choose(below: 20)))
      // Nothing came, and nothing is kept: whoever is to go on now must do so by himself, soon.
      vain = ledger.count == before && shelf.packets.isEmpty ? vain + 1 : 0
      if ledger.count == before || world.chance(oneIn: 4) { shelf.packets = [] }
    }
  }
  var delivered = 0
  while delivered < count {
    let before = delivered
    delivered +=
      await source.perform { pair in
        var done = 0
        while before + done < count, !pair.receive.held.isEmpty, !world.chance(oneIn: 6) {
          guard pair.deliver(Frame(flow: 0, number: before + done).bytes) else { break }
          done += 1
        }
        pair.receive.armKicks()
        return done
      } ?? 0
    if await source.perform({ $0.receive.held.isEmpty }) ?? true, delivered < count { await bell.wait() }
    await plan.pause(world)
  }
  while ledger.count < count {
    try await Task.sleep(for: .milliseconds(1))
    shelf.packets = []
  }
  await cleaner.value
  try await device.close()
  await reader.value
  shelf.packets = []
}
