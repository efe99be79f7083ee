import Netdev
import NetdevTesting

/// Several senders, and who of them is next.
let turnScenarios: [Scenario] = [
  Scenario(name: "turns", body: takeTurns)
]

/// Two queues of one small pool, senders on both whose packets lie elsewhere, some in several buffers, and a device that takes its
/// time: everybody has his turn, and nobody is told that there are no buffers while they go round, nor overtaken all the time.
private func takeTurns(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let ring = 4 << world.choose(below: 2)
  var configuration = NetworkDevice.Configuration()
  configuration.pool = try PacketPool(.init(slots: 2 * ring + 4 + world.choose(below: 4), hugePages: false))
  func driver(_ mode: ScriptedDriver.Mode) -> ScriptedDriver {
    ScriptedDriver(mode: mode, capacity: ring, mtu: 9000, receiveBufferSize: 1514)
  }
  let slow = driver(.hold)
  let devices = [
    try await NetworkDevice.open(driver: slow, configuration: configuration),
    try await NetworkDevice.open(driver: driver(.release), configuration: configuration),
  ]
  world.watch(devices[0].pool)
  // So slow that claims which it alone could fulfil rest, and others pass them.
  let isVerySlow = plan.disturbances.contains(.delay) && world.chance(oneIn: 2)
  let elsewhere = try PacketPool(.init(slots: 1, hugePages: false))
  let progress = Progress()
  let senders = (0..<8).map { number in
    Task.detached {
      let queue = devices[number < 6 ? 0 : 1].queues[0]
      for frame in 0..<plan.size {
        await plan.pause(world)
        let padding = [UInt8](repeating: 0, count: 2048 * world.choose(below: 3))
        let packet = try Packet(copying: Frame(flow: number, number: frame).bytes + padding, in: elsewhere)
        let turn = progress.begin()
        do throws(NetworkDeviceError) {
          try await queue.send(packet)
          let overtakers = progress.end(turn, isSlow: number < 6)
          if number >= 6, !isVerySlow, overtakers > fewOvertakers {
            world.find("\(overtakers) later frames were sent before frame \(frame) of sender \(number)")
          }
        } catch {
          if error.code != .cancelled { world.find("sender \(number) was told: \(error)") }
          break
        }
      }
      progress.senders -= 1
    }
  }
  let releaser = Task.detached {
    while progress.senders > 0 {
      // As long as it takes until all have had their turn, patience may run out many times.
      try await Task.sleep(for: .milliseconds(1 + world.choose(below: isVerySlow ? 600 : 2)))
      await slow.releaseFirst(1 + world.choose(below: 2))
    }
  }
  if plan.disturbances.contains(.cancel) {
    for sender in senders where world.chance(oneIn: 4) {
      try await Task.sleep(for: .microseconds(world.choose(below: 500)))
      sender.cancel()
    }
  }
  for sender in senders { try await sender.value }
  try await releaser.value
  for device in devices { try await device.close() }
}

/// Frames of the slow queue that may pass one of the other: a few do, as long as it is not the first of its own queue.
private let fewOvertakers = 10

/// Who is still there, and in which order frames came and went. Used by the tasks of one world.
private final class Progress: @unchecked Sendable {
  var senders = 8
  private var begun = 0
  /// The turns of the slow queue's frames that have been sent.
  private var sent: [Int] = []

  /// The turn of a frame that is about to be sent.
  func begin() -> Int {
    begun += 1
    return begun
  }

  /// It has been sent: how many frames of the slow queue have been that came later.
  func end(_ turn: Int, isSlow: Bool) -> Int {
    if isSlow { sent.append(turn) }
    return sent.count { $0 > turn }
  }
}
