import Netdev
import NetdevTesting
import VirtioNet

/// A peer of whom one thing matters: that it is silent, or late, or has sent very much.
let peerMomentScenarios: [Scenario] = [
  Scenario(name: "peer-silent", body: cancelAtSilentPeer),
  Scenario(name: "peer-narrow", body: cancelBeforeOthers),
  Scenario(name: "peer-tardy", body: releaseWithoutWord),
  Scenario(name: "peer-wraps", body: wrapIndices),
  Scenario(name: "peer-delivers", body: deliverToHoarder),
]

/// A peer that gives nothing back until those who wait for room have been cancelled: they go on at once, and none of theirs is sent.
private func cancelAtSilentPeer(_ world: SimulatedWorld, _ plan: Plan) async throws {
  var configuration = LyingDevice.Configuration()
  configuration.maximumQueueSize = 4
  let silent = LyingDevice(configuration)
  let device = try await NetworkDevice.open(driver: VirtioNetDriver(transport: silent))
  world.watch(device.pool)
  let queue = device.queues[0]
  let senders = (0..<8).map { flow in
    Task.detached {
      do {
        try await queue.send(try Frame(flow: flow, number: 0).packet(in: queue.pool))
        return true
      } catch {
        if !isOfEnding(error) { throw error }
        return false
      }
    }
  }
  let consumer = Task.detached { for await _ in queue.packets {} }
  try await Task.sleep(for: .microseconds(world.choose(below: 100)))
  for sender in senders { sender.cancel() }
  if world.chance(oneIn: 2) { consumer.cancel() }
  try await Task.sleep(for: .milliseconds(10))
  let held = await silent.perform { $0.transmit.held.count } ?? 0
  var rest = senders[...]
  var sent = 0
  await silent.perform { $0.releaseAll() }
  while let sender = rest.popFirst() { if try await sender.value { sent += 1 } }
  if sent != held { world.find("\(held) frames were with the device, \(sent) sends ended well") }
  try await device.close()
  await consumer.value
}

/// Some wait for room for many frames, others behind them for less: when the first are cancelled, the others go on at once.
private func cancelBeforeOthers(_ world: SimulatedWorld, _ plan: Plan) async throws {
  var configuration = LyingDevice.Configuration()
  configuration.maximumQueueSize = 8
  let silent = LyingDevice(configuration)
  let device = try await world.open(driver: VirtioNetDriver(transport: silent))
  let queue = device.queues[0]
  guard let ring = await silent.rings()?.transmit else { return world.find("the device has no rings") }
  // From outside: a turn of the queue's loop would give it another chance.
  func hold(_ count: Int) async throws {
    var vain = 0
    while Int(ring.availableIndex) != count {
      vain += 1
      guard vain < 1000, world.isCalm else {
        if world.isCalm { world.find("the device does not have \(count) frames, and there is room for them") }
        return
      }
      try await Task.sleep(for: .milliseconds(1))
    }
  }
  let early = 4 + world.choose(below: 3)
  for number in 0..<early { try await queue.submit(try Frame(flow: 0, number: number).packet(in: queue.pool)) }
  try await hold(early)
  let wide = Task.detached {
    do {
      try await queue.run { queue in
        try await waitForBuffers(of: queue)
        var burst = try queue.makeBurst(count: 8, length: 64)
        var number = 0
        burst.forEach { bytes in
          Frame(flow: 2, number: 7 * number).write(to: &bytes)
          number += 1
        }
        try await queue.send(burst)
      }
    } catch { if !isOfEnding(error) { throw error } }
  }
  if world.chance(oneIn: 2) { try await Task.sleep(for: .microseconds(world.choose(below: 50))) }
  let narrow = Task.detached {
    try await queue.send(try Frame(flow: 1, number: 0).packet(in: queue.pool))
  }
  try await Task.sleep(for: .microseconds(world.choose(below: 50)))
  wide.cancel()
  try await wide.value
  try await hold(early + 1)
  // Where calls were refused it may come as late as it likes.
  let life = Life()
  let releases = Task.detached {
    while !life.isOver {
      await silent.perform { $0.releaseAll() }
      try? await Task.sleep(for: .milliseconds(1))
    }
  }
  let outcome = await narrow.result
  life.isOver = true
  await releases.value
  try outcome.get()
  try await device.close()
}

/// Frames that nobody waits for, given back one by one while the driver has asked to hear of most of them together: they are taken
/// back within the bound all the same.
private func releaseWithoutWord(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let tardy = LyingDevice()
  let device = try await NetworkDevice.open(driver: VirtioNetDriver(transport: tardy))
  world.watch(device.pool)
  let queue = device.queues[0]
  let count = 40
  for number in 0..<count { try await queue.submit(try Frame(flow: 0, number: number).packet(in: queue.pool)) }
  while await tardy.perform({ $0.transmit.held.count }) != count { try await Task.sleep(for: .milliseconds(1)) }
  try await Task.sleep(for: .milliseconds(world.choose(below: 10)))
  for released in 1..<min(count, 2 + plan.size) {
    await tardy.perform { pair in _ = pair.release(interrupt: .whenWanted) }
    try await Task.sleep(for: .milliseconds(200 + world.choose(below: 200)))
    let reported = queue.statistics.packetsReleased
    if reported != UInt64(released) { world.find("\(released) buffers were given back, \(reported) are known of") }
  }
  await tardy.perform { $0.releaseAll() }
  try await device.close()
}

/// So many frames that the indices of both rings begin again at 0; in a few seeds only, as it takes its time.
private func wrapIndices(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let far = farSide(world, recovers: false)
  let device = try await world.open(driver: VirtioNetDriver(transport: far))
  await far.perform { pair in
    pair.whenKicked = { $0.loopBack() }
    pair.loopBack()
  }
  let queue = device.queues[0]
  let batch = 64
  let rounds = world.chance(oneIn: 24) ? (65_536 + 1000) / batch : plan.size
  let ledger = Ledger(world)
  let reader = Task.detached { for await packet in queue.packets { ledger.note(Frame(packet)) } }
  for round in 0..<rounds {
    // A frame's number ends before the indices do.
    let frames = (round * batch..<(round + 1) * batch).map { Frame(flow: $0 >> 15, number: $0 & 0x7fff) }
    try await queue.send(contentsOf: frames.map { try $0.packet(in: queue.pool) })
  }
  let last = rounds * batch - 1
  try await ledger.wait(for: (last & 0x7fff) + 1, of: last >> 15)
  try await device.close()
  await reader.value
}

/// A peer delivers whatever there are buffers for, to a program that keeps what it gets until it has all of the pool: when it lets
/// go, elsewhere than on the loop, reception goes on by itself.
private func deliverToHoarder(_ world: SimulatedWorld, _ plan: Plan) async throws {
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
