import Netdev
import NetdevDevices
import NetdevTesting

/// Frames that come in while nothing goes out: nobody wakes the queue's loop but who has reason to.
let receptionScenarios: [Scenario] = [
  Scenario(name: "received-only", body: receiveOneByOne),
  Scenario(name: "hoarded", body: hoard),
  Scenario(name: "returned", body: leaveWithFrames),
  Scenario(name: "cancelled-consumers", body: cancelConsumers),
]

extension SimulatedWorld {
  /// Waits until it is so; when it does not come about, though nothing has happened, somebody has forgotten to go on.
  fileprivate func expectSoon(_ what: String, _ isSo: () -> Bool, meanwhile: () -> Void = {}) async throws {
    var vain = 0
    while !isSo() {
      // Of what has been refused, some is tried again after a second.
      guard vain < (isCalm ? 40 : 400) else {
        if isCalm { find("this does not come about: \(what)") }
        return
      }
      vain += 1
      try await Task.sleep(for: .milliseconds(5))
      meanwhile()
    }
  }
}

/// Each frame comes as soon as the one before it has been taken, while the queue's loop is on its way to sleep.
private func receiveOneByOne(_ world: SimulatedWorld, _ plan: Plan) async throws {
  guard let interface = world.makeInterface("wire0") else { return world.find("no interface") }
  let device = try await world.open("tap:wire0?placement=own" + rings(world))
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let count = min(16 * plan.size, 60_000)
  let isOnLoop = world.chance(oneIn: 2)
  @Sendable func take(_ packet: Packet) {
    ledger.note(Frame(packet))
    if ledger.count < count { interface.send(Frame(flow: 0, number: ledger.count).bytes) }
  }
  let reader = Task.detached {
    if isOnLoop {
      await queue.run { queue in for await packet in queue.packets { take(packet) } }
    } else {
      for await packet in queue.packets { take(packet) }
    }
  }
  interface.send(Frame(flow: 0, number: 0).bytes)
  var before = -1
  while ledger.count < count, ledger.count > before {
    before = ledger.count
    try await world.expectSoon("frame \(before) is received") { ledger.count > before }
  }
  try await device.close()
  await reader.value
}

/// By each of the ways from this machine.
private func hoard(_ world: SimulatedWorld, _ plan: Plan) async throws {
  for link in [Link.tap, .tun, nil] where world.isCalm { try await hoard(by: link, world) }
}

/// Somebody keeps what comes until the pool is empty: when he lets go, elsewhere than on the loop, reception goes on by itself.
///
/// - Parameter link: nil for a UDP port.
private func hoard(by link: Link?, _ world: SimulatedWorld) async throws {
  var configuration = NetworkDevice.Configuration()
  configuration.queueSize = 4
  configuration.pool = try PacketPool(.init(slots: 10, slotSize: 2048, hugePages: false))
  let number = UInt16(7007)
  let name = link == .tun ? "wire1" : "wire0"
  let interface = link.flatMap { world.makeInterface(name, isLayer3: $0 == .tun) }
  let port = world.port(number)
  let device = try await world.open(
    (link.map { "\($0.rawValue):\(name)" } ?? "host-udp:127.0.0.1:\(number)") + "?placement=own" + rings(world),
    configuration: configuration)
  let queue = device.queues[0]
  let (ledger, shelf) = (Ledger(world), Shelf())
  let reader = Task.detached {
    for await packet in queue.packets {
      if let link {
        ledger.note(link.frame(packet))
      } else {
        // Behind the headers of Ethernet, IPv4 and UDP.
        var payload = packet
        payload.removeFirst(42)
        ledger.note(Frame(payload))
      }
      shelf.packets.append(packet)
    }
  }
  let count = 24
  for number in 0..<count {
    let frame = Frame(flow: 0, number: number)
    let isSent =
      if let link, let interface { interface.send(link.bytes(frame)) } else { port.send(frame.bytes, from: 5000) }
    if !isSent, world.isCalm { world.find("\(frame.name) finds nobody") }
  }
  var before = -1
  while ledger.count < count, ledger.count > before {
    before = ledger.count
    try await world.expectSoon("frame \(before) is received") {
      ledger.count > before
    } meanwhile: {
      shelf.packets = []
    }
  }
  try await device.close()
  await reader.value
  shelf.packets = []
}

/// Somebody elsewhere leaves with frames that he was given ahead. Whoever waits gets them at once, and whoever comes next gets them
/// before later ones; and what is submitted from elsewhere afterwards goes out by itself.
private func leaveWithFrames(_ world: SimulatedWorld, _ plan: Plan) async throws {
  guard let interface = world.makeInterface("wire0") else { return world.find("no interface") }
  let device = try await world.open("tap:wire0?placement=own" + rings(world))
  let queue = device.queues[0]
  let seen = Seen()
  var consumers: [Task<Void, Never>] = []
  func play(_ round: Int) async throws {
    let numbers = 6 * round..<6 * (round + 1)
    for number in numbers.prefix(3) { interface.send(Frame(flow: 0, number: number).bytes) }
    let first = Task.detached {
      for await packet in queue.packets {
        seen.note(Frame(packet), world)
        try? await Task.sleep(for: .milliseconds(3))
        break
      }
    }
    consumers.append(first)
    try await Task.sleep(for: .milliseconds(1))
    for number in numbers.suffix(3) { interface.send(Frame(flow: 0, number: number).bytes) }
    if world.chance(oneIn: 2) {
      // Takes one of those that came meanwhile, and leaves the others at hand.
      await queue.run { queue in
        for await packet in queue.packets {
          seen.note(Frame(packet), world)
          break
        }
      }
    }
    let waits = world.chance(oneIn: 2)
    if !waits { await first.value }
    // One that came while others wait has not been promised any order.
    let order = waits ? nil : Ledger(world, isLossy: true)
    let next = Task.detached {
      while seen.numbers.count < numbers.upperBound, let burst = await queue.receiveBurst() {
        burst.forEachFrame { bytes in
          let frame = Frame(bytes)
          order?.note(frame)
          seen.note(frame, world)
        }
      }
    }
    consumers.append(next)
    try await world.expectSoon("all frames of round \(round) are received") {
      seen.numbers.count == numbers.upperBound
    }
    guard world.isCalm else { return }
    // Who waits still, because the other one has had the last frame, goes: in the next round he would have a share.
    first.cancel()
    next.cancel()
    await first.value
    await next.value
    try await Task.sleep(for: .microseconds(world.choose(below: 3000)))
    let answer = Frame(flow: 1, number: round)
    try await queue.submit(try answer.packet(in: queue.pool))
    var sent: Frame?
    try await world.expectSoon("\(answer.name) goes out") {
      sent = interface.take().flatMap { Frame($0) } ?? sent
      return sent != nil
    }
    if world.isCalm, sent != answer { world.find("\(answer.name) was sent, and not \(sent?.name ?? "nothing")") }
  }
  for round in 0..<plan.size where world.isCalm { try await play(round) }
  try await device.close()
  for consumer in consumers { await consumer.value }
}

/// Nothing comes: whoever waits for it and is cancelled goes on at once.
private func cancelConsumers(_ world: SimulatedWorld, _ plan: Plan) async throws {
  guard world.makeInterface("wire0") != nil else { return world.find("no interface") }
  let device = try await world.open("tap:wire0?placement=own" + rings(world))
  let queue = device.queues[0]
  let consumers = (0..<1 + world.choose(below: 4)).map { _ in
    let way = world.choose(below: 4)
    return Task.detached {
      switch way {
      case 0: for await _ in queue.packets {}
      case 1: await queue.run { queue in for await _ in queue.packets {} }
      case 2: while await queue.receiveBurst() != nil {}
      default: try? await queue.sleep(for: .seconds(1000))
      }
    }
  }
  try? await Task.sleep(for: .microseconds(world.choose(below: 200)))
  let begin = world.now
  for consumer in consumers { consumer.cancel() }
  for consumer in consumers { await consumer.value }
  let taken = world.now - begin
  if world.isCalm, taken > .seconds(1) { world.find("who was cancelled went on after \(taken)") }
  try await device.close()
}
