import Netdev
import NetdevDevices
import NetdevTesting

/// Devices behind which there is this machine: the world's kernel on the other side of a TAP or TUN interface, programs at a UDP port.
let kernelScenarios: [Scenario] = [
  Scenario(name: "tap") { world, plan in try await drive(.tap, world, plan, isTroubled: false) },
  Scenario(name: "tap-troubled") { world, plan in
    try await drive(.tap, world, plan, isTroubled: plan.disturbances.contains(.loss))
  },
  Scenario(name: "tun") { world, plan in
    try await drive(.tun, world, plan, isTroubled: plan.disturbances.contains(.loss) && world.chance(oneIn: 2))
  },
  Scenario(name: "tap-deleted", body: deleteTap),
  Scenario(name: "tap-other-mtu", body: changeMTU),
  Scenario(name: "host-udp", body: echoDatagrams),
]

/// What an interface carries.
enum Link: String, Sendable {
  /// Frames.
  case tap
  /// Packets: of IPv4 and IPv6 by turns, whose bytes behind the first are a frame's.
  case tun

  /// The station of whoever is behind a TUN interface.
  private static let router: [UInt8] = [0x02, 0x00, 0x5e, 0x00, 0x00, 0x01]

  /// What the kernel has of a frame.
  func bytes(_ frame: Frame) -> [UInt8] {
    self == .tap ? frame.bytes : [frame.number % 2 == 0 ? 0x45 : 0x60] + frame.bytes
  }

  /// The frame of what the kernel has.
  func frame(_ bytes: [UInt8]) -> Frame? { Frame(self == .tap ? bytes : Array(bytes.dropFirst())) }

  /// What the device sends of a frame.
  func packet(_ frame: Frame, in pool: PacketPool) throws(NetworkDeviceError) -> Packet {
    guard self == .tun else { return try frame.packet(in: pool) }
    let type: [UInt8] = frame.number % 2 == 0 ? [0x08, 0x00] : [0x86, 0xdd]
    return try Packet(copying: Self.router + [2, 0, 0, 0, 0, 1] + type + bytes(frame), in: pool)
  }

  /// The frame of what the device has received.
  func frame(_ packet: consuming Packet) -> Frame? {
    var packet = packet
    if self == .tun { packet.removeFirst(15) }
    return Frame(packet)
  }
}

/// Flows in both directions, a queue pair each. While nobody troubles the interface nothing is lost.
private func drive(_ link: Link, _ world: SimulatedWorld, _ plan: Plan, isTroubled: Bool) async throws {
  let queues = 1 + world.choose(below: 2)
  guard let interface = world.makeInterface("wire0", isMultiQueue: queues > 1, isLayer3: link == .tun) else {
    return world.find("no interface")
  }
  if world.chance(oneIn: 2) { interface.setRoom(1 + world.choose(below: 4)) }
  let device = try await world.open(
    "\(link.rawValue):wire0?queues=\(queues)" + (world.chance(oneIn: 2) ? "&placement=own" : "") + rings(world))
  let (sent, received) = (Ledger(world, isLossy: isTroubled), Ledger(world, isLossy: isTroubled))
  let kernel = Task.detached {
    while let bytes = await interface.next() {
      sent.note(link.frame(bytes))
      await plan.pause(world)
    }
  }
  defer { interface.finish() }
  let (out, into) = (Account(), Account())
  let readers = device.queues.map { queue in
    Task.detached {
      for await packet in queue.packets { received.note(link.frame(packet)) }
      out.isOver = true
      into.isOver = true
    }
  }
  let trouble = Task.detached { if isTroubled { try await makeTrouble(interface, world) } }
  let senders = device.queues.map { queue in
    world.task("a sender") {
      for number in 0..<plan.size {
        await plan.pause(world)
        out.begun += 1
        try await send(
          [try link.packet(Frame(flow: queue.index, number: number), in: queue.pool)], by: queue, world)
        out.done += 1
      }
    }
  }
  for number in 0..<plan.size {
    await plan.pause(world)
    for queue in 0..<queues {
      if interface.send(link.bytes(Frame(flow: queue, number: number)), queue: queue) {
        into.begun += 1
        into.done += 1
      } else if !isTroubled && world.isCalm {
        world.find("the interface has no queue \(queue), or no room in it")
      }
    }
  }
  try await finish(senders, world)
  try await trouble.value
  try await out.settle(world) { sent.count + Int(device.deviceDrops.reduce(0) { $0 + $1.totalTransmitted }) }
  try await into.settle(world) { received.count + Int(device.deviceDrops.reduce(0) { $0 + $1.totalReceived }) }
  if !isTroubled, world.isCalm, device.deviceDrops.contains(where: { $0.totalTransmitted + $0.totalReceived > 0 }) {
    world.find("frames were dropped, and nothing had happened: \(device.deviceDrops)")
  }
  try await device.close()
  await kernel.finished(interface)
  for reader in readers { await reader.value }
}

extension Task where Success == Void, Failure == Never {
  /// Ends the waiting for the interface's frames, and with it this.
  fileprivate func finished(_ interface: SimulatedInterface) async {
    interface.finish()
    await value
  }
}

// snippet
private func changeMTU(_ world: SimulatedWorld, _ plan: Plan) async throws {
  guard let interface = world.makeInterface("tap0") else { return world.find("no interface") }
  let ledger = Ledger(world)
  let kernel = Task.detached { while let frame = await interface.next() { ledger.note(Frame(frame)) } }
  defer { interface.finish() }
  let device = try await world.open("tap:tap0")
  world.mayHappen("another MTU", isHarmless: true) { interface.setMTU(1400) }
  for number in 0..<plan.size {
    await plan.pause(world)
    try await device.queues[0].send(try Frame(flow: 0, number: number).packet(in: device.pool))
  }
  try await ledger.wait(for: plan.size)
  ledger.expectAll(plan.size, of: 0)
  try await device.close()
  interface.finish()
  await kernel.value
}
// end

/// Frames that went one way: each has come, or is counted as dropped; none is lost without a word.
///
/// Used by the tasks of one world.
private final class Account: @unchecked Sendable {
  /// Frames that somebody began to send, and those of them of which he knows that they are on their way or further.
  var begun = 0
  var done = 0
  /// The device has ended: what was on its way need not come.
  var isOver = false

  /// Waits until all that were sent are accounted for.
  func settle(_ world: SimulatedWorld, _ accounted: () -> Int) async throws {
    while accounted() < done, !isOver { try await Task.sleep(for: .milliseconds(1)) }
    try await Task.sleep(for: .milliseconds(10))
    if accounted() > begun { world.find("\(begun) frames were sent, \(accounted()) have come or were dropped") }
  }
}

/// Down and up, another MTU: none of it ends the device.
private func makeTrouble(_ interface: SimulatedInterface, _ world: SimulatedWorld) async throws {
  for _ in 0...world.choose(below: 4) {
    try await Task.sleep(for: .microseconds(world.choose(below: 2000)))
    switch world.choose(below: 2) {
    case 0:
      interface.setUp(false)
      if world.chance(oneIn: 2) { try await Task.sleep(for: .microseconds(world.choose(below: 5000))) }
      interface.setUp(true)
    default: interface.setMTU(1400 + world.choose(below: 100))
    }
  }
}

/// The interface is deleted at any moment: the device breaks with a word, and every wait ends.
private func deleteTap(_ world: SimulatedWorld, _ plan: Plan) async throws {
  guard let interface = world.makeInterface("tap0") else { return world.find("no interface") }
  let deletion = Task.detached {
    try await Task.sleep(for: .microseconds(world.choose(below: 500)))
    interface.delete()
  }
  do {
    let device = try await world.open("tap:tap0" + (world.chance(oneIn: 2) ? "?placement=own" : ""))
    let ledger = Ledger(world)
    try await device.run { queue in
      let sender = Task.detached {
        // Until the device has ended: what was sent to an interface that is gone is dropped, and counted.
        var number = 0
        while true {
          await plan.pause(world)
          try await send([try Frame(flow: 0, number: number).packet(in: queue.pool)], by: queue, world)
          if number < 60_000 { number += 1 }
          try await Task.sleep(for: .microseconds(100))
        }
      }
      for await packet in queue.packets { ledger.note(Frame(packet)) }
      try? await sender.value
    }
    if world.isCalm { world.find("the interface is gone, and the device ended well") }
  } catch {
    guard error is NetworkDeviceError || isOfEnding(error) else { throw error }
  }
  try await deletion.value
}

/// Programs send datagrams, which come back.
private func echoDatagrams(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let number = UInt16(7007)
  let port = world.port(number)
  let placement = world.chance(oneIn: 2) ? "inline" : "own"
  let device = try await world.open("host-udp:127.0.0.1:\(number)?placement=\(placement)" + rings(world))
  let programs = 1 + world.choose(below: 3)
  let (ledger, account) = (Ledger(world), Account())
  let answers = Task.detached {
    while let datagram = await port.next() {
      let frame = Frame(datagram.payload)
      if let frame, Int(datagram.program) != 5000 + frame.flow {
        world.find("\(frame.name) went to \(datagram.program)")
      }
      ledger.note(frame)
    }
  }
  defer { port.finish() }
  let echo = Task.detached {
    defer { account.isOver = true }
    try await device.run { queue in
      for await var packet in queue.packets {
        packet.withMutableBytes { bytes in
          bytes.exchange(0, 6, 6)
          bytes.exchange(26, 30, 4)
          bytes.exchange(34, 36, 2)
        }
        if world.chance(oneIn: 2) { try await queue.send(packet) } else { try await queue.submit(packet) }
      }
    }
  }
  defer { echo.cancel() }
  for number in 0..<plan.size {
    await plan.pause(world)
    for program in 0..<programs {
      if port.send(Frame(flow: program, number: number).bytes, from: UInt16(5000 + program)) {
        account.begun += 1
        account.done += 1
      } else if world.isCalm {
        world.find("nobody has the port")
      }
    }
  }
  try await account.settle(world) {
    ledger.count + Int(device.deviceDrops.reduce(0) { $0 + $1.totalTransmitted + $1.totalReceived })
  }
  if world.isCalm, ledger.count != account.done { world.find("\(account.done) datagrams, \(ledger.count) answers") }
  echo.cancel()
  do { try await echo.value } catch { if !isOfEnding(error) { throw error } }
  port.finish()
  await answers.value
}

extension MutableRawSpan {
  /// Two pieces of the same length change places.
  fileprivate mutating func exchange(_ one: Int, _ other: Int, _ length: Int) {
    for index in 0..<length {
      let first = unsafeLoad(fromByteOffset: one + index, as: UInt8.self)
      let second = unsafeLoad(fromByteOffset: other + index, as: UInt8.self)
      storeBytes(of: second, toByteOffset: one + index, as: UInt8.self)
      storeBytes(of: first, toByteOffset: other + index, as: UInt8.self)
    }
  }
}
