import Netdev
import NetdevTesting
import Virtio
import VirtioNet

/// A device on the other side of the rings, honest but slow, out of order, and mortal.
let peerScenarios: [Scenario] = [
  Scenario(name: "peer") { world, plan in try await drivePeer(world, plan, losses: 0) },
  Scenario(name: "peer-lost") { world, plan in
    try await drivePeer(world, plan, losses: plan.disturbances.contains(.loss) ? 1 + world.choose(below: 3) : 0)
  },
  Scenario(name: "peer-lost-once") { world, plan in
    try await drivePeer(
      world, plan, losses: plan.disturbances.contains(.loss) ? 1 + world.choose(below: 3) : 0, isSentAgain: false)
  },
  Scenario(name: "peer-closed", mayQuarantine: true, body: closeUnderPeer),
]

/// Flows through one queue to a peer and from it, which may be lost and come back meanwhile: every send ends, and well; where
/// frames are not sent again, it may also end with the word that the frame is lost.
private func drivePeer(
  _ world: SimulatedWorld, _ plan: Plan, losses: Int, isSentAgain: Bool = true
) async throws {
  let far = farSide(world, recovers: losses > 0, isSentAgain: isSentAgain)
  let peer = Peer(world, plan, at: far)
  defer { peer.end() }
  // A device that is closed while a lost one goes on keeps its buffers from the pool for good: then nobody closes it early.
  let livesOn = losses > 0 && world.chance(oneIn: 2)
  let driver = driver(of: far)
  let device = livesOn ? try await NetworkDevice.open(driver: driver) : try await world.open(driver: driver)
  world.watch(device.pool)
  await far.perform { peer.live($0) }
  let service = Task.detached { await peer.work() }
  let queue = device.queues[0]
  let senders = (0..<3).map { flow in
    world.task("a sender") {
      var number = 0
      while number < plan.size {
        await plan.pause(world)
        // Of a batch that fails nobody is told which of its frames is lost.
        let count = isSentAgain ? min(1 + world.choose(below: 3), plan.size - number) : 1
        let frames = (number..<number + count).map { Frame(flow: flow, number: $0) }
        number += count
        do {
          try await send(
            frames.map { try $0.packet(in: queue.pool) }, by: queue, world, isSubmitted: isSentAgain,
            peer.expectReleased)
        } catch {
          guard !isSentAgain, (error as? NetworkDeviceError)?.code == .frameLost else { throw error }
          frames.forEach(peer.noteLost)
        }
      }
    }
  }
  let ledger = Ledger(world, isLossy: losses > 0)
  let reader = Task.detached {
    for await packet in queue.packets {
      ledger.note(Frame(packet))
      await plan.pause(world)
    }
  }
  let delivery = Task.detached { await peer.deliver(plan.size, flow: 100) }
  let changes = device.linkChanges
  var isUp = changes.makeAsyncIterator()
  for _ in 0..<losses {
    if world.chance(oneIn: 2) { try await Task.sleep(for: .microseconds(world.choose(below: 3000))) }
    far.isThere = world.chance(oneIn: 2)
    if !livesOn || world.chance(oneIn: 2) {
      peer.die()
      far.lose { true }
    } else {
      // It goes on for a while: what it gives back then is known of, or sent again.
      let life = Life()
      far.lose { life.isOver }
      try? await Task.sleep(for: .microseconds(world.choose(below: 3000)))
      peer.die()
      life.isOver = true
      far.requestAttention()
    }
    if world.chance(oneIn: 2) { try await Task.sleep(for: .microseconds(world.choose(below: 30_000))) }
    far.isThere = true
    // Until it is up again.
    while let change = await isUp.next() { if case .up = change { break } }
    try Task.checkCancellation()
    await far.perform { peer.live($0) }
  }
  try await finish(senders, world)
  try await queue.send(try Frame(flow: 3, number: 0).packet(in: queue.pool))
  if losses == 0 { try await ledger.wait(for: plan.size, of: 100) }
  try await device.close()
  peer.end()
  await service.value
  await delivery.value
  await reader.value
  expectNoMisplacedKick(far, world)
}

/// Of a device that is told lost before it is, or of whatever else ends. Used by the tasks of one world.
final class Life: @unchecked Sendable {
  var isOver = false
}

func farSide(_ world: SimulatedWorld, recovers: Bool, isSentAgain: Bool = true) -> LyingDevice {
  var configuration = LyingDevice.Configuration()
  configuration.maximumQueueSize = 4 << world.choose(below: 4)
  if world.chance(oneIn: 3) { configuration.features.remove(.eventIndex) }
  if recovers {
    var recovery = VirtioRecovery()
    recovery.inFlight = isSentAgain ? .resubmit : .fail
    configuration.recovery = recovery
  }
  if world.chance(oneIn: 2) { configuration.features.insert(.ringPacked) }
  return LyingDevice(configuration)
}

/// With the rings that the device offers.
func driver(of device: LyingDevice) -> VirtioNetDriver {
  var options = VirtioNetDriver.Options()
  options.packedRings = device.configuration.features.contains(.ringPacked)
  return VirtioNetDriver(transport: device, options: options)
}

private func expectNoMisplacedKick(_ device: LyingDevice, _ world: SimulatedWorld) {
  for event in device.events {
    if case .misplacedKick = event { world.find("a doorbell while no driver may ring (VIRTIO 1.4 §3.1.1)") }
  }
}

/// The device is closed, and confirms or does not, while frames are with it.
private func closeUnderPeer(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let far = farSide(world, recovers: false)
  let peer = Peer(world, plan, at: far)
  defer { peer.end() }
  var configuration = NetworkDevice.Configuration()
  // What stays in quarantine stays for as long as the sweep lasts.
  configuration.pool = try PacketPool(.init(slots: 128, slotSize: 2048, hugePages: false))
  let device = try await NetworkDevice.open(
    driver: driver(of: far), configuration: configuration)
  let isConfirmed = world.chance(oneIn: 3)
  if isConfirmed { world.watch(device.pool) } else { far.resetBehaviour = .never }
  await far.perform { peer.live($0) }
  let service = Task.detached { await peer.work() }
  let queue = device.queues[0]
  let senders = (0..<3).map { flow in
    Task.detached {
      for number in 0..<plan.size * 4 {
        do {
          try await queue.send(try Frame(flow: flow, number: number).packet(in: queue.pool))
        } catch {
          guard let error = error as? NetworkDeviceError, [.closed, .resetNotConfirmed, .broken].contains(error.code)
          else { throw error }
          return
        }
      }
    }
  }
  // Most of them right after the start.
  try await Task.sleep(for: .microseconds(world.choose(below: world.chance(oneIn: 4) ? 2000 : 300)))
  let breaks = world.chance(oneIn: 4)
  if breaks { await far.perform { $0.needReset() } }
  do { try await device.close() } catch { if isConfirmed { world.find("close: \(error)") } }
  for sender in senders { try await sender.value }
  peer.end()
  await service.value
  expectNoMisplacedKick(far, world)
}
