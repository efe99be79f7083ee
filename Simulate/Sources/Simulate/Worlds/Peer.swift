import LibeventConcurrency
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
  Scenario(name: "peer-silent", body: cancelAtSilentPeer),
  Scenario(name: "peer-narrow", body: cancelBeforeOthers),
  Scenario(name: "peer-tardy", body: releaseWithoutWord),
  Scenario(name: "peer-wraps", body: wrapIndices),
  Scenario(name: "peer-delivers", body: deliverToHoarder),
]

/// What is behind a device: the script reaches the rings of its queue pairs.
protocol FarSide: AnyObject, Sendable {
  func perform<Result: Sendable>(pair index: Int, _ body: @Sendable (LyingPair) -> Result) async -> Result?
}

extension LyingDevice: FarSide {}
extension VhostUserPeer: FarSide {}

/// The other side of one queue pair. It works when it is rung for, and never looks by itself: a doorbell that is missing is missed.
final class Peer: @unchecked Sendable {
  // Proof of Sendable: the tasks of one world.
  private let side: any FarSide
  let index: Int
  private let world: SimulatedWorld
  private let plan: Plan
  private var isWorking = true
  private let bell = SimulatedBell()
  private let room = SimulatedBell()
  /// The pair that it serves; none while it is dead. Held, as another one could have the place in memory of one that has gone.
  private var pair: LyingPair?
  /// How many of the frames held have been looked at.
  private var taken = 0
  /// The newest frame of each flow in this life.
  private var newest: [Int: Int] = [:]
  /// What was given back, in any life, and what the program was told is lost.
  private var released: Set<Frame> = []
  /// Called each time before it looks at what there is, and after it has delivered something.
  var meanwhile: (() -> Void)?

  init(_ world: SimulatedWorld, _ plan: Plan, at side: any FarSide, pair index: Int = 0) {
    self.world = world
    self.plan = plan
    self.side = side
    self.index = index
  }

  /// Lives: listens to the doorbells of the pair that there is now. On its loop.
  func live(_ pair: LyingPair) {
    // Whoever closed the device was quicker.
    guard !pair.isOver else { return }
    world.note("the peer lives")
    self.pair = pair
    taken = 0
    newest = [:]
    pair.whenKicked = { [weak self] pair in if self?.pair === pair { self?.ring() } }
    pair.transmit.armKicks()
    pair.receive.armKicks()
    ring()
  }

  /// A send says that it was given back.
  func expectReleased(_ frame: Frame) {
    if !released.contains(frame) { world.find("the send of \(frame.name) has ended, and the device still has it") }
  }

  /// The program knows that it is lost.
  func noteLost(_ frame: Frame) { released.insert(frame) }

  private func ring() {
    bell.ring()
    room.ring()
  }

  /// The device is gone: what it still has of the rings it does not touch any more.
  func die() {
    pair = nil
    world.note("the peer dies")
  }

  func end() {
    isWorking = false
    ring()
  }

  /// Delivers frames of a flow, each as soon as there is a buffer for it.
  func deliver(_ count: Int, flow: Int) async {
    var number = 0
    while number < count, isWorking {
      let frame = Frame(flow: flow, number: number)
      let isDone = await side.perform(pair: index) { [self] pair in
        guard pair === self.pair, !pair.isOver else { return false }
        pair.receive.armKicks()
        return deliver(frame, to: pair)
      }
      if isDone == true { number += 1 } else { await room.wait() }
      await plan.pause(world)
    }
  }

  /// In one buffer, or in several where that was agreed.
  private func deliver(_ frame: Frame, to pair: LyingPair) -> Bool {
    guard pair.deliver(frame.bytes, pieces: world.pieces(of: frame, for: pair)) else { return false }
    meanwhile?()
    return true
  }

  /// Serves until `end`.
  func work() async {
    while isWorking {
      await bell.wait()
      while isWorking {
        await plan.pause(world, microseconds: 2000)
        let isDone =
          await side.perform(pair: index) { [self] in $0 === pair && !$0.isOver ? serve($0) : true } ?? true
        if isDone { break }
      }
    }
  }

  /// Some of what there is, in any order; true when nothing is left.
  private func serve(_ pair: LyingPair) -> Bool {
    meanwhile?()
    note(pair)
    for _ in 0..<world.choose(below: taken + 1) {
      // One that has been looked at: others may come meanwhile.
      let place = world.choose(below: taken)
      if let frame = pair.transmitted(at: place).flatMap({ Frame($0.frame) }) {
        world.note("the peer releases \(frame.name)")
        released.insert(frame)
      }
      pair.release(at: place, interrupt: .whenWanted)
      taken -= 1
    }
    if world.chance(oneIn: 16) { pair.interrupt() }
    guard pair.transmit.held.isEmpty else { return false }
    pair.transmit.armKicks()
    pair.receive.armKicks()
    return true
  }

  /// The frames that have come to the ring since it was looked at last, in the order in which they were published.
  private func note(_ pair: LyingPair) {
    for position in min(taken, pair.transmit.held.count)..<pair.transmit.held.count {
      guard let frame = pair.transmitted(at: position).flatMap({ Frame($0.frame) }) else {
        world.find("the peer sees other bytes than were sent")
        continue
      }
      order(frame)
    }
    taken = pair.transmit.held.count
  }

  /// In one life of the device the frames of a flow come in order, each once, and none is left out that was not given back in an
  /// earlier life.
  private func order(_ frame: Frame) {
    world.note("the peer sees \(frame.name)")
    let before = newest[frame.flow] ?? -1
    if frame.number <= before { return world.find("\(frame.name) follows \(before)") }
    for missing in before + 1..<frame.number where !released.contains(Frame(flow: frame.flow, number: missing)) {
      world.find("\(frame.name) follows \(before), and \(missing) was not given back")
    }
    newest[frame.flow] = frame.number
  }
}

extension SimulatedWorld {
  /// How many bytes of a frame go to each buffer.
  func pieces(of frame: Frame, for pair: LyingPair) -> [Int] {
    var left = frame.bytes.count
    var pieces: [Int] = []
    while pair.features.contains(.mrgRxbuf), pieces.count + 1 < min(4, pair.receive.held.count), chance(oneIn: 3) {
      pieces.append(1 + choose(below: left / 2))
      left -= pieces[pieces.count - 1]
    }
    return pieces + [left]
  }
}

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
      for number in 0..<plan.size {
        await plan.pause(world)
        let frame = Frame(flow: flow, number: number)
        do {
          try await send(
            [try frame.packet(in: queue.pool)], by: queue, world, isSubmitted: isSentAgain, peer.expectReleased)
        } catch {
          guard !isSentAgain, (error as? NetworkDeviceError)?.code == .frameLost else { throw error }
          peer.noteLost(frame)
        }
      }
    }
  }
  let ledger = Ledger(world)
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
private final class Life: @unchecked Sendable {
  var isOver = false
}

private func farSide(_ world: SimulatedWorld, recovers: Bool, isSentAgain: Bool = true) -> LyingDevice {
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
private func driver(of device: LyingDevice) -> VirtioNetDriver {
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
