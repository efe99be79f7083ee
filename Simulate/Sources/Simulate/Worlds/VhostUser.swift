import Netdev
import NetdevDevices
import NetdevTesting
import Virtio

/// The real vhost-user transport, and a switch on the other side of its socket that is lost and comes back: in both roles.
let vhostUserScenarios: [Scenario] = [
  Scenario(name: "vhost-user") { world, plan in try await driveSwitch(world, plan, .init()) },
  Scenario(name: "vhost-user-lost") { world, plan in
    try await driveSwitch(world, plan, .init(losses: plan.losses(world)))
  },
  Scenario(name: "vhost-user-server") { world, plan in try await driveSwitch(world, plan, .init(isServer: true)) },
  Scenario(name: "vhost-user-server-lost") { world, plan in
    try await driveSwitch(world, plan, .init(isServer: true, losses: plan.losses(world)))
  },
  Scenario(name: "vhost-user-reset", body: resetSwitch),
  Scenario(name: "vhost-user-lingering", mayQuarantine: true) { world, plan in
    try await driveSwitch(
      world, plan, .init(isServer: world.chance(oneIn: 2), losses: plan.losses(world), lingers: true))
  },
]

extension Plan {
  fileprivate func losses(_ world: SimulatedWorld) -> Int {
    disturbances.contains(.loss) ? 1 + world.choose(below: 3) : 0
  }
}

private struct Terms {
  /// We listen, and the switch connects.
  var isServer = false
  var losses = 0
  /// The switch may hang up and live on for a while, so that what it could still write to is kept from us.
  var lingers = false
}

/// Flows to a switch and from it. Every send ends, and well; while it is not lost, nothing is.
private func driveSwitch(_ world: SimulatedWorld, _ plan: Plan, _ terms: Terms) async throws {
  var configuration = VhostUserPeer.Configuration()
  configuration.listens = !terms.isServer
  configuration.survives = terms.lingers
  configuration.queuePairs = 1 + world.choose(below: 2)
  if world.chance(oneIn: 3) { configuration.features.remove(.eventIndex) }
  // The other side takes its time with each chain, and none with their order: without IN_ORDER.
  let isPacked = world.chance(oneIn: 2)
  if isPacked { configuration.features.insert(.ringPacked) }
  // Without acknowledgements, configuration, memory slots, a status: the other ways through the handshake.
  for bit in [3, 9, 15, 16] where world.chance(oneIn: 4) { configuration.protocolFeatures &= ~(1 << UInt64(bit)) }
  if configuration.queuePairs > 1 { configuration.features.insert(.mq) }
  if world.chance(oneIn: 2) { configuration.features.insert(.status) }
  let back = try VhostUserPeer(world, path: "switch", configuration: configuration)
  let peers = (0..<configuration.queuePairs).map { Peer(world, plan, at: back, pair: $0) }
  let losses = Losses(terms.losses)
  back.whenDriven = { pair in
    peers[pair.index].live(pair)
    // Gone as soon as it is there.
    guard losses.left > 0, world.chance(oneIn: 3) else { return }
    Task.detached {
      try? await Task.sleep(for: .microseconds(world.choose(below: 500)))
      losses.lose(back, world, terms.lingers)
    }
  }
  let debris = Debris(world)
  if terms.lingers {
    back.whenHungUp = { debris.add($0, until: losses.end) }
    for peer in peers { peer.meanwhile = { debris.scribble() } }
  }
  defer {
    back.end()
    for peer in peers { peer.end() }
  }
  back.begin()
  let services = peers.map { peer in Task.detached { await peer.work() } }
  let size = 8 << world.choose(below: 3) + (isPacked ? world.choose(below: 4) : 0)
  // Few enough that what a switch left is soon in use again: those of each life, of one life's frames, and some more.
  let slots = (terms.losses + 2) * configuration.queuePairs * size + 32
  let device = try await open(
    "vhost-user:switch?queues=\(configuration.queuePairs)&queue_size=\(size)" + (isPacked ? "&packed=1" : "")
      + (terms.isServer ? "&server=1" : ""), world, slots: terms.lingers ? slots : nil)
  if plan.disturbances.contains(.loss) { changeLink(of: back, world) }
  let ledger = Ledger(world, isLossy: terms.losses > 0)
  let readers = device.queues.map { queue in
    Task.detached { for await packet in queue.packets { ledger.note(Frame(packet)) } }
  }
  let senders = device.queues.flatMap { queue in
    (0..<2).map { flow in
      world.task("a sender") {
        for number in 0..<plan.size {
          await plan.pause(world)
          try await send(
            [try Frame(flow: 2 * queue.index + flow, number: number).packet(in: queue.pool)], by: queue, world,
            peers[queue.index].expectReleased)
        }
      }
    }
  }
  var deliveries = peers.map { peer in Task.detached { await peer.deliver(plan.size, flow: 100 + peer.index) } }
  while losses.left > 0 {
    try await Task.sleep(for: .microseconds(world.choose(below: 20_000)))
    losses.lose(back, world, terms.lingers)
  }
  try await finish(senders, world)
  if terms.losses == 0 {
    for peer in peers { try await ledger.wait(for: plan.size, of: 100 + peer.index) }
    if configuration.tellsOfLink { try await expectLinkToFollow(device, back, world) }
  }
  if terms.losses > 0, world.isCalm {
    // It works again, and what is sent lies in buffers that were others' before.
    let numbers = 0..<(terms.lingers ? 24 : 1)
    if terms.lingers {
      // So is what it receives.
      deliveries[0] = Task.detached { [before = deliveries[0]] in
        await before.value
        await peers[0].deliver(numbers.count, flow: 95)
      }
    }
    try await device.queues[0].send(contentsOf: numbers.map { try Frame(flow: 90, number: $0).packet(in: device.pool) })
  }
  if terms.lingers {
    back.exit()
    try await Task.sleep(for: .seconds(6))
    // With all processes gone nobody can write to anything: all of it comes home.
    if world.isCalm { world.watch(device.pool) }
  }
  try await device.close()
  for peer in peers { peer.end() }
  for delivery in deliveries { await delivery.value }
  for reader in readers { await reader.value }
  for service in services { await service.value }
}

extension VhostUserPeer.Configuration {
  /// With a status in its configuration, and a channel to say that it has changed.
  fileprivate var tellsOfLink: Bool {
    features.contains(.status) && [5, 9].allSatisfy { protocolFeatures & 1 << UInt64($0) != 0 }
  }
}

/// The device knows what the switch says of the link, soon after it has said it.
private func expectLinkToFollow(_ device: NetworkDevice, _ back: VhostUserPeer, _ world: SimulatedWorld) async throws {
  back.setLink(isUp: !back.isLinkUp)
  try await Task.sleep(for: .milliseconds(10))
  var vain = 0
  while device.isLinkUp != back.isLinkUp, world.isCalm {
    vain += 1
    guard vain < 200 else {
      return world.find("the switch says that its link is \(back.isLinkUp ? "up" : "down"), the device does not")
    }
    try await Task.sleep(for: .milliseconds(1))
  }
}

/// What switches that have hung up still write to, as they may until they exit: the buffers that they were given and have not
/// used. Used by the tasks of one world.
private final class Debris: @unchecked Sendable {
  private let world: SimulatedWorld
  private var pieces: [(end: Duration, ring: LyingRing, buffer: LyingRing.Descriptor)] = []

  init(_ world: SimulatedWorld) { self.world = world }

  /// Those of a switch that hangs up now and lives on until then.
  func add(_ pairs: [LyingPair], until end: Duration) {
    for pair in pairs {
      for buffer in pair.receive.held.flatMap(pair.receive.chain) where buffer.isWritable {
        pieces.append((end, pair.receive.ring, buffer))
      }
    }
  }

  func scribble() {
    guard !pieces.isEmpty, world.chance(oneIn: 2) else { return }
    pieces.removeAll { $0.end <= world.now }
    for (_, ring, buffer) in pieces {
      ring.write([UInt8](repeating: 0xee, count: min(200, Int(buffer.length))), at: buffer.address)
    }
  }
}

/// Down and up, each at any moment.
private func changeLink(of back: VhostUserPeer, _ world: SimulatedWorld) {
  guard world.chance(oneIn: 2) else { return }
  world.mayHappen("the switch's link goes down", isHarmless: true) {
    back.setLink(isUp: false)
    world.mayHappen("the switch's link comes up", isHarmless: true) { back.setLink(isUp: true) }
  }
}

/// The switch reports an error of a ring at any moment: the device ends with that word, and every wait with it.
private func resetSwitch(_ world: SimulatedWorld, _ plan: Plan) async throws {
  var configuration = VhostUserPeer.Configuration()
  configuration.listens = world.chance(oneIn: 2)
  configuration.survives = false
  let back = try VhostUserPeer(world, path: "switch", configuration: configuration)
  let peer = Peer(world, plan, at: back)
  back.whenDriven = { peer.live($0) }
  defer {
    back.end()
    peer.end()
  }
  back.begin()
  let service = Task.detached { await peer.work() }
  let device = try await open("vhost-user:switch" + (configuration.listens ? "" : "?server=1"), world)
  world.mayHappen("the switch reports an error") {
    back.reportError()
  }
  do {
    try await device.run { queue in
      let sender = Task.detached {
        for number in 0..<60_000 {
          // What it said before it was driven, nobody has heard.
          if number >= 2000 { back.reportError() }
          try await send([try Frame(flow: 0, number: number).packet(in: queue.pool)], by: queue, world)
          try await Task.sleep(for: .microseconds(100))
        }
      }
      for await _ in queue.packets {}
      do { try await sender.value } catch { if (error as? NetworkDeviceError)?.code != .broken { throw error } }
    }
    if world.isCalm { world.find("the switch has reported an error, and the device ended well") }
  } catch {
    guard (error as? NetworkDeviceError)?.code == .broken || isOfEnding(error) else { throw error }
  }
  peer.end()
  await service.value
}

/// The switch may not listen yet.
///
/// - Parameter slots: buffers of the pool, of which some may not come home; nil where all do.
private func open(_ url: String, _ world: SimulatedWorld, slots: Int? = nil) async throws -> NetworkDevice {
  while true {
    do {
      guard let slots else { return try await world.open(url) }
      var configuration = NetworkDevice.Configuration()
      configuration.pool = try PacketPool(.init(slots: slots, hugePages: false))
      return try await NetworkDevice.open(url, configuration: configuration)
    } catch {
      guard [.notFound, .broken, .timedOut].contains(error.code) else { throw error }
    }
    try await Task.sleep(for: .milliseconds(1))
  }
}

/// Losses that are still to come. Used by the tasks of one world.
private final class Losses: @unchecked Sendable {
  private(set) var left: Int
  /// Until then the process that was lost last lives on.
  private(set) var end = Duration.zero
  private var isUnderWay = false

  init(_ count: Int) { left = count }

  /// Loses the switch in one of the ways in which it can get lost, and brings it back later.
  func lose(_ back: VhostUserPeer, _ world: SimulatedWorld, _ lingers: Bool) {
    guard left > 0, !isUnderWay else { return }
    left -= 1
    isUnderWay = true
    let pause = Duration.microseconds(world.choose(below: world.chance(oneIn: 2) ? 200 : 50_000))
    end = world.now + pause
    switch world.choose(below: lingers ? 6 : 2) {
    case 0: back.exit()
    case 1: back.hangUp(exitingAfter: pause)
    case 2...4:
      // Who lives on for longer than a second is not waited for.
      let life = Duration.milliseconds(world.choose(below: 4000))
      end = world.now + life
      back.hangUp(exitingAfter: life)
    default: back.hangUp()
    }
    Task.detached { [self] in
      try? await Task.sleep(for: pause + .microseconds(100))
      back.begin()
      isUnderWay = false
    }
  }
}
