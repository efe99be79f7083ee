import Netdev
import NetdevTesting
import Virtio
import VirtioNet

/// Room in a ring: who is kept from it by what, and who was promised it.
let roomScenarios: [Scenario] = [
  Scenario(name: "kept-from-ring", body: lackBuffers),
  Scenario(name: "promised-room", body: promiseRoom),
]

/// A device that releases nothing, and a program that keeps so many buffers that reception would be left without, so that a sender
/// waits while there is room in the ring: he goes on when the program lets go, elsewhere than on the loop.
private func lackBuffers(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let (size, share) = (8, 7)
  var configuration = NetworkDevice.Configuration()
  configuration.queueSize = size
  // What a queue may have with its device, however few buffers are left, is half of what is not the reserve.
  configuration.pool = try PacketPool(.init(slots: 8 + 2 * share, reserve: 8, hugePages: false))
  var terms = LyingDevice.Configuration()
  if world.chance(oneIn: 2) { terms.features.insert(.ringPacked) }
  let silent = LyingDevice(terms)
  let device = try await world.open(driver: driver(of: silent), configuration: configuration)
  let queue = device.queues[0]
  let shelf = Shelf()
  let reader = Task.detached { for await packet in queue.packets { shelf.packets.append(packet) } }
  // As many as the device may have, one more, and some to be kept.
  let count = share + 1 + 2 + world.choose(below: 3)
  var delivered = 0
  while shelf.packets.count < count, world.isCalm {
    delivered +=
      await silent.perform { [delivered] pair in
        var done = 0
        while delivered + done < count, pair.deliver(Frame(flow: 0, number: delivered + done).bytes) { done += 1 }
        return done
      } ?? 0
    try await Task.sleep(for: .milliseconds(1))
  }
  let sent = Sent()
  let sender = world.task("the sender") {
    // On the loop, where it waits until there is room.
    try await queue.run { queue in
      while sent.count <= share, !shelf.packets.isEmpty {
        sent.count += 1
        try await queue.submit(shelf.packets.removeFirst())
      }
    }
  }
  try await Task.sleep(for: .milliseconds(10))
  shelf.packets = []
  // Nothing is looked at meanwhile: a turn of the queue's loop would give him another chance.
  try await finish([sender], world)
  try await device.close()
  await reader.value
  shelf.packets = []
}

/// A number of the tasks of one world.
private final class Sent: @unchecked Sendable {
  var count = 0
}

/// Those who want room for many frames and those who want it for one, and a device that takes its time: nobody is promised what
/// another one has been promised, so that room and what is in flight are never more than the ring.
private func promiseRoom(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let size = 8
  var terms = LyingDevice.Configuration()
  terms.maximumQueueSize = size
  if world.chance(oneIn: 2) { terms.features.insert(.ringPacked) }
  let far = LyingDevice(terms)
  let device = try await world.open(driver: driver(of: far))
  let queue = device.queues[0]
  let life = Life()
  defer { life.isOver = true }
  let releases = Task.detached {
    while !life.isOver {
      try? await Task.sleep(for: .microseconds(1 + world.choose(below: 500)))
      await far.perform { pair in
        for _ in 0...world.choose(below: 4) where !pair.transmit.held.isEmpty { pair.release(interrupt: .whenWanted) }
      }
    }
  }
  let senders = (0..<3).map { flow in
    world.task("a sender") {
      for number in 0..<plan.size {
        await plan.pause(world)
        let count = flow == 0 ? 1 : 1 + world.choose(below: 6)
        try await queue.run { queue in
          try await waitForBuffers(of: queue)
          var burst = try queue.makeBurst(count: count, length: 60)
          burst.forEach { bytes in Frame(flow: flow, number: 7 * (number % 1000)).write(to: &bytes) }
          try await queue.send(burst)
          let (room, inFlight) = (queue.transmitRoom, queue.inFlight)
          if room + inFlight > size {
            world.find("\(inFlight) frames are in flight in a ring of \(size), and there is room for \(room)")
          }
        }
      }
    }
  }
  try await finish(senders, world)
  life.isOver = true
  await releases.value
  try await device.close()
}
